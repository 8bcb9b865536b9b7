"""result.json: one self-contained record a run, from which every table is made."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from kdexp.common import files, machine
from kdexp.common.registry import build
from kdexp.common.results import LAYOUT
from kdexp.config.identity import SCHEMA
from kdexp.config.schema import Config
from kdexp.methods import pretraining
from kdexp.methods.base import Facts
from kdexp.models import build as models
from kdexp.models import cost, source
from kdexp.run.spec import RunSpec
from kdexp.store.stage import Stage
from kdexp.store.store import Finished
from kdexp.train import predictions
from kdexp.train.context import RunContext

Summaries = list[tuple[Stage, Finished, bool]]
"""Finished stages in order, and whether each was in the store already."""


def assemble(
    spec: RunSpec,
    stages: list[Stage],
    done: dict[str, tuple[Finished, bool]],
    known: Facts,
    run: RunContext,
    seconds: float,
) -> dict[str, Any]:
    """Put a run's result together from the summaries of its stages.

    Args:
        done: stage key -> (finished stage, whether it was in the store already).
        known: the contents that the keys hold.
        seconds: wall time of this run in this process.
    """
    config = spec.config
    task, last = build(config.task), done[stages[-1].key][0].summary
    data = run.data(config.recipe.max_length)
    summaries = [(s, *done[s.key]) for s in stages if s.key in done]
    students = [(s, f) for s, f, _ in summaries if s.role != "teacher" and s.name != pretraining.NAME]
    efficiency = _efficiency(run.config, task, summaries, run)
    return {
        "schema": LAYOUT,
        "run": {
            "id": spec.id,
            "schema": SCHEMA,
            "name": spec.name,
            "study": config.study,
            "seed": config.seed,
            "folder": str(spec.run_dir),
        },
        "status": "finished",
        "labels": {**spec.labels, "task": task.shown_name(config.data.root)},
        "science": spec.science,
        "origin": known.origin,
        "task": _task(config, task, data, last, known),
        "selection": config.selection,
        "best": last["best"],
        "scores": last["scores"],
        "predictions": _predictions(done[stages[-1].key][0], _taught(summaries), spec.run_dir),
        "teacher": _teacher(config, summaries, efficiency.get("teacher")),
        "student": _student(config, last, summaries, efficiency.get("student"), known),
        "mapping": {name: pairs for _, f, _ in summaries for name, pairs in f.summary.get("mapping", {}).items()},
        "init": last["init"],
        "stages": [{"name": s.name, "key": s.key, "reused": reused, **_cost(f.summary)} for s, f, reused in summaries],
        "cost": {
            "seconds": round(seconds, 3),
            "train_seconds": round(sum(f.summary.get("seconds", 0) for _, f in students), 3),
            "steps": sum(f.summary.get("steps", 0) for _, f in students),
        },
        "runtime": {
            "device": str(run.device),
            "devices": run.ranks.size,
            "dtype": run.dtype,
            "threads": run.threads,
            "compile": run.facts.get("compile", {}),
            "teacher": run.facts.get("teacher", {}),
            "reach": run.facts.get("reach", {}),
            "allocator": {name: os.environ[name] for name in machine.ALLOCATOR if name in os.environ},
            "versions": machine.versions(),
            "hardware": machine.hardware(str(run.device)),
        },
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


def _predictions(student: Finished, teacher: Finished | None, run_dir: Path) -> dict[str, str]:
    """Copy what the student answered into the run's folder, where it stays; returns the sha256 of each split's file.

    Of the teacher, the examples that a report shows.
    """
    kept = {name: sha256 for name, sha256 in student.meta["files"].items() if name.startswith(f"{predictions.FOLDER}/")}
    for name in kept:
        files.copy(student.folder / name, run_dir / name)
    for path in () if teacher is None else sorted((teacher.folder / predictions.FOLDER).glob("*.shown.json")):
        files.copy(path, run_dir / predictions.FOLDER / f"teacher.{path.name}")
    return {Path(name).stem: sha256 for name, sha256 in kept.items() if name.endswith(".safetensors")}


def _taught(summaries: Summaries) -> Finished | None:
    """Return the teacher's stage, if its result is here."""
    return next((f for s, f, _ in summaries if s.role == "teacher" and f.folder.is_dir()), None)


def _cost(summary: dict[str, Any]) -> dict[str, Any]:
    names = (
        "seconds", "steps", "examples", "examples_per_s", "tflops_per_s", "mfu", "peak_memory_mb", "padding",
        "vocabulary",
    )  # fmt: skip
    return {name: summary.get(name) for name in names}


def _task(config: Config, task: Any, data: dict[str, Any], last: dict[str, Any], known: Facts) -> dict[str, Any]:
    return {
        "kind": task.head.name,
        "metric": task.metric,
        "metrics": list(task.metrics),
        "num_labels": task.head.width,
        "data_hash": known.data,
        **({} if known.further is None else {"unlabelled_hash": known.further}),
        "hub_commit": config.task.get("hub_commit"),
        "rows": {name: len(split) for name, split in data.items()},
        "scored": {name: len(next(iter(split.truths.values()))) for name, split in data.items()},
        "majority": last["majority"],
        **{key: {name: split.facts.get(key) for name, split in data.items()} for key in _facts(data)},
        "note": task.note(config.data.root),
    }


def _facts(data: dict[str, Any]) -> list[str]:
    """Return the names of what the splits say about themselves, such as how many texts were cut."""
    return sorted({key for split in data.values() for key in split.facts})


def _teacher(config: Config, summaries: Summaries, efficiency: Any) -> dict[str, Any] | None:
    taught = next(((s.key, f.summary) for s, f, _ in summaries if s.role == "teacher"), None)
    if taught is None:
        return None
    key, summary = taught
    measured = {name: summary[name] for name in ("scores", "parameters", "layers")}
    for stage, finished, _ in summaries:
        if stage.name == pretraining.NAME:
            said = {name: finished.summary[name] for name in ("scores", "steps", "tokens", "tokens_per_s", "seconds")}
            measured["pretrained"] = {"key": stage.key, **said}
    return {"name": config.teacher.name, **measured, "key": key, "efficiency": efficiency}


def _student(
    config: Config, last: dict[str, Any], summaries: Summaries, efficiency: Any, known: Facts
) -> dict[str, Any]:
    final = summaries[-1][1]
    kept = config.runtime.keep_weights != "none" and final.whole
    learned = {s.name: f.summary["learned_parts"] for s, f, _ in summaries if f.summary.get("learned_parts")}
    return {
        **{name: last[name] for name in ("parameters", "layers", "hidden_size", "size_bytes")},
        "efficiency": efficiency,
        "weights": str(final.folder) if kept else None,
        "learned_parts": learned,
        **({"origin": known.own} if known.own else {}),
    }


def _efficiency(config: Config, task: Any, summaries: Summaries, run: RunContext) -> dict[str, Any]:
    """Measure the exported student and its teacher where ``runtime.efficiency`` asks for it."""
    if not config.runtime.efficiency:
        return {}
    length, measured = config.recipe.max_length, dict[str, Any]()
    head, mine, theirs = task.head, run.data(length)["train"], run.data(length, config.teacher)["train"]
    for stage, folder in [(s, f.folder) for s, f, _ in summaries if "model.safetensors" in f.meta["files"]]:
        if stage.role == "teacher":
            model = models.load_teacher(config.teacher, head, folder)
            measured["teacher"] = cost.measure(model, run.device, lambda size: theirs.specimen(size, length))
        elif stage is summaries[-1][0]:
            like = source.of_student(config)
            model = models.load_weights(models.build_student(like, config.student, head, None, 0), folder)
            measured["student"] = cost.measure(model, run.device, lambda size: mine.specimen(size, length))
    return measured
