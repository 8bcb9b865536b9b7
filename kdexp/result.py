"""result.json: one self-contained record a run, from which every table is made."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kdexp import machine
from kdexp.config import science
from kdexp.stage import Stage
from kdexp.targets import build

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
    from kdexp.runs import LABELS, identity, label

    task, last = build(config["task"]), done[stages[-1].key][0].summary
    data = run.data(config["recipe"]["max_length"])
    summaries = [(s, *done[s.key]) for s in stages if s.key in done]
    teacher = next((f.summary | {"key": s.key} for s, f, _ in summaries if s.name == "teacher"), None)
    efficiency = _efficiency(config, task, summaries, run)
    kept = config["runtime"]["keep_weights"] != "none"
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
        "labels": {
            **{group: label(config, group) for group in LABELS},
            "task": task.shown_name(config["data"]["root"]),
        },
        "science": science(config),
        "task": {
            "kind": task.kind,
            "metric": task.metric,
            "metrics": list(task.metrics),
            "num_labels": task.num_labels,
            "data_hash": known.data,
            "rows": {name: len(split) for name, split in data.items()},
            "majority": last["majority"],
            "truncated": {name: split.truncated for name, split in data.items()},
            "note": task.note(config["data"]["root"]),
        },
        "selection": config["selection"],
        "best": last["best"],
        "scores": last["scores"],
        "teacher": teacher
        and {
            "name": config["teacher"]["name"],
            "scores": teacher["scores"],
            "parameters": teacher["parameters"],
            "layers": teacher["layers"],
            "key": teacher["key"],
            "efficiency": efficiency.get("teacher"),
        },
        "student": {
            "parameters": last["parameters"],
            "layers": last["layers"],
            "hidden_size": last["hidden_size"],
            "size_bytes": last["size_bytes"],
            "efficiency": efficiency.get("student"),
            "weights": str(store.root / stages[-1].key) if kept else None,
            "learned_parts": {
                s.name: f.summary.get("learned_parts", {}) for s, f, _ in summaries if f.summary.get("learned_parts")
            },
        },
        "mapping": {name: pairs for _, f, _ in summaries for name, pairs in f.summary.get("mapping", {}).items()},
        "init": last["init"],
        "stages": [
            {
                "name": s.name,
                "key": s.key,
                "reused": reused,
                **{k: f.summary.get(k) for k in ("seconds", "steps", "examples", "examples_per_s", "peak_memory_mb")},
            }
            for s, f, reused in summaries
        ],
        "cost": {
            "seconds": round(seconds, 3),
            "train_seconds": round(sum(f.summary.get("seconds", 0) for s, f, _ in summaries if s.name != "teacher"), 3),
            "steps": sum(f.summary.get("steps", 0) for s, f, _ in summaries if s.name != "teacher"),
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


def _efficiency(config: dict[str, Any], task: Any, summaries: list[Any], run: Any) -> dict[str, Any]:
    """Measure the exported student and its teacher where ``runtime.efficiency`` asks for it."""
    if not config["runtime"]["efficiency"]:
        return {}
    from kdexp import efficiency

    have = {s.name: f.folder for s, f, _ in summaries if "model.safetensors" in f.meta["files"]}
    return efficiency.of_run(run, task, {"student": have.get(summaries[-1][0].name), "teacher": have.get("teacher")})
