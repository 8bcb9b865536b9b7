"""result.json: one self-contained record a run, from which every table is made."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kdexp.common import machine
from kdexp.common.registry import build
from kdexp.config.resolve import science
from kdexp.store.stage import TEACHER, Stage

SCHEMA = 1


def assemble(
    config: dict[str, Any],
    where: Path,
    stages: list[Stage],
    done: dict[str, tuple[Any, bool]],
    known: Any,
    run: Any,
    store: Any,
    seconds: float,
) -> dict[str, Any]:
    """Put a run's result together from the summaries of its stages.

    Args:
        done: stage key -> (finished stage, whether it was in the store already).
        known: the plan's facts.
        seconds: wall time of this run in this process.
    """
    from kdexp.run.execute import LABELS, identity, label

    task, last = build(config["task"]), done[stages[-1].key][0].summary
    data = run.data(config["recipe"]["max_length"])
    summaries = [(s, *done[s.key]) for s in stages if s.key in done]
    efficiency = _efficiency(config, task, summaries, run)
    return {
        "schema": SCHEMA,
        "run": {
            "id": identity(config),
            "name": where.name,
            "study": config["study"],
            "seed": config["seed"],
            "folder": str(where),
        },
        "status": "finished",
        "labels": {**{g: label(config, g) for g in LABELS}, "task": task.shown_name(config["data"]["root"])},
        "science": science(config),
        "origin": known.origin,
        "task": _task(config, task, data, last, known),
        "selection": config["selection"],
        "best": last["best"],
        "scores": last["scores"],
        "teacher": _teacher(config, summaries, efficiency.get("teacher")),
        "student": _student(config, last, stages, summaries, store, efficiency.get("student")),
        "mapping": {name: pairs for _, f, _ in summaries for name, pairs in f.summary.get("mapping", {}).items()},
        "init": last["init"],
        "stages": [{"name": s.name, "key": s.key, "reused": again, **_cost(f.summary)} for s, f, again in summaries],
        "cost": {
            "seconds": round(seconds, 3),
            "train_seconds": round(sum(f.summary.get("seconds", 0) for s, f, _ in summaries if s.role != TEACHER), 3),
            "steps": sum(f.summary.get("steps", 0) for s, f, _ in summaries if s.role != TEACHER),
        },
        "runtime": {
            "device": str(run.device),
            "dtype": run.dtype,
            "threads": run.threads,
            "compile": run.facts.get("compile", {}),
            "versions": machine.versions(),
            "hardware": machine.hardware(str(run.device)),
        },
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


def _cost(summary: dict[str, Any]) -> dict[str, Any]:
    return {k: summary.get(k) for k in ("seconds", "steps", "examples", "examples_per_s", "peak_memory_mb")}


def _task(config: dict[str, Any], task: Any, data: dict[str, Any], last: dict[str, Any], known: Any) -> dict[str, Any]:
    return {
        "kind": task.head.name,
        "metric": task.metric,
        "metrics": list(task.metrics),
        "num_labels": task.head.width,
        "data_hash": known.data,
        "rows": {name: len(split) for name, split in data.items()},
        "majority": last["majority"],
        **{key: {name: split.facts.get(key) for name, split in data.items()} for key in _facts(data)},
        "note": task.note(config["data"]["root"]),
    }


def _facts(data: dict[str, Any]) -> list[str]:
    """Return the names of what the splits say about themselves, such as how many texts were cut."""
    return sorted({key for split in data.values() for key in split.facts})


def _teacher(config: dict[str, Any], summaries: list[Any], efficiency: Any) -> dict[str, Any] | None:
    found = next(((s.key, f.summary) for s, f, _ in summaries if s.role == TEACHER), None)
    if found is None:
        return None
    key, summary = found
    own = {name: summary[name] for name in ("scores", "parameters", "layers")}
    return {"name": config["teacher"]["name"], **own, "key": key, "efficiency": efficiency}


def _student(
    config: dict[str, Any], last: dict[str, Any], stages: list[Stage], summaries: list[Any], store: Any, efficiency: Any
) -> dict[str, Any]:
    final = summaries[-1][1]
    kept = config["runtime"]["keep_weights"] != "none" and final.whole
    learned = {s.name: f.summary["learned_parts"] for s, f, _ in summaries if f.summary.get("learned_parts")}
    return {
        **{name: last[name] for name in ("parameters", "layers", "hidden_size", "size_bytes")},
        "efficiency": efficiency,
        "weights": str(final.folder) if kept else None,
        "learned_parts": learned,
    }


def _efficiency(config: dict[str, Any], task: Any, summaries: list[Any], run: Any) -> dict[str, Any]:
    """Measure the exported student and its teacher where ``runtime.efficiency`` asks for it."""
    if not config["runtime"]["efficiency"]:
        return {}
    from kdexp.models import build as models
    from kdexp.models import cost

    split, length = run.data(config["recipe"]["max_length"])["train"], config["recipe"]["max_length"]
    whole = [(stage, f.folder) for stage, f, _ in summaries if "model.safetensors" in f.meta["files"]]
    found, teacher = {}, config["teacher"]
    for stage, folder in whole:
        if stage.role == TEACHER:
            model = models.load_teacher(teacher, task.head, folder)
            found["teacher"] = cost.measure(model, run.device, lambda size: split.specimen(size, length))
        elif stage is summaries[-1][0]:
            model = models.load_weights(models.build_student(teacher, config["student"], task.head, None, 0), folder)
            found["student"] = cost.measure(model, run.device, lambda size: split.specimen(size, length))
    return found
