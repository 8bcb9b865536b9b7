"""Synthetic studies: result.json trees, study.json and a small real MLflow store. No model is trained here."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

TASKS = {"rte": ("accuracy", 0.527, 277), "cola": ("mcc", 0.0, 1043)}
LEVEL = {"finetune": 0.60, "kd": 0.64, "att_kl": 0.66}
GAIN = {"first": 0.02, "last": -0.02, "random": -0.05}


def make_result(
    study: str,
    task: str,
    objective: str,
    init: str,
    seed: int,
    *,
    shift: float = 0.0,
    noise: float = 0.004,
    **changes: Any,
) -> dict[str, Any]:
    """A schema-1 result; ``changes`` replaces top-level keys or, dotted with ``__``, nested ones."""
    chosen, majority, rows = TASKS.get(task, ("accuracy", 0.4, 500))
    science = {
        "teacher": {"name": "minilm"},
        "student": {"name": "half", "num_layers": 3},
        "init": {"name": init},
        "mapping": {"name": "auto"},
        "objective": {"name": objective},
        "task": {"name": task},
        "recipe": {"learning_rate": 5e-5},
        "selection": "heldout",
        "seed": seed,
    }
    run = hashlib.sha256(json.dumps([science, shift], sort_keys=True).encode()).hexdigest()
    draw = random.Random(run)
    name = f"{task}-{objective}-{init}-s{seed}-{run[:8]}"
    value = LEVEL.get(objective, 0.62) + GAIN.get(init, 0.0) + shift + draw.gauss(0, noise)
    metrics = {"accuracy": value, "f1": value + 0.05, "mcc": value - 0.3}
    result: dict[str, Any] = {
        "schema": 1,
        "status": "finished",
        "science": science,
        "selection": "heldout",
        "run": {"id": run, "name": name, "study": study, "seed": seed, "folder": f"multirun/{study}/{name}"},
        "labels": {
            "teacher": "minilm",
            "student": "half",
            "objective": objective,
            "mapping": "auto",
            "init": init,
            "task": task,
        },
        "task": {
            "kind": "classification",
            "metric": chosen,
            "metrics": ["accuracy", "f1", "mcc"],
            "num_labels": 2,
            "data_hash": hashlib.sha256(task.encode()).hexdigest(),
            "rows": {"train": 2000, "heldout": 200, "validation": rows},
            "majority": {"validation": {"accuracy": max(majority, 0.5), "f1": 0.69, "mcc": 0.0}},
            "truncated": {"train": 3},
        },
        "best": {"epoch": 3, "step": 300, "heldout": {"accuracy": value + 0.01}},
        "scores": {"validation": metrics, "heldout": {"accuracy": value + 0.01}, "validation_last": metrics},
        "teacher": {
            "name": "minilm",
            "parameters": 22_700_000,
            "layers": 6,
            "key": f"teacher-{task}",
            "scores": {"validation": {"accuracy": 0.75, "f1": 0.79, "mcc": 0.5}, "heldout": {"accuracy": 0.76}},
        },
        "student": {
            "parameters": 17_000_000,
            "layers": 3,
            "hidden_size": 384,
            "size_bytes": 68_000_000,
            "weights": None,
        },
        "mapping": {"hidden": [[0, 0], [1, 2]]},
        "init": {"layers": [1, 2, 3], "copied": 50, "random": 2},
        "stages": [
            {
                "name": "distill.prediction",
                "key": "k",
                "reused": False,
                "seconds": 9.0,
                "steps": 300,
                "examples": 9600,
                "examples_per_s": 1066.0,
                "peak_memory_mb": 900,
            }
        ],
        "cost": {"seconds": 10.0, "train_seconds": 9.0, "steps": 300},
        "runtime": {
            "device": "cpu",
            "dtype": "fp32",
            "threads": 1,
            "compile": {"asked": "auto", "decided": False, "why": "short"},
            "versions": {"kdexp": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.7"},
            "hardware": "test cpu",
        },
        "finished": "2026-11-21T00:00:00+00:00",
    }
    for key, change in changes.items():
        target = result
        *path, last = key.split("__")
        for part in path:
            target = target[part]
        target[last] = change
    return result


def write_run(root: Path, result: dict[str, Any]) -> Path:
    """A finished run's folder with result, status and two learning-curve lines."""
    folder = root / result["run"]["study"] / result["run"]["name"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "status.json").write_text(
        json.dumps({"state": "finished", "pid": 1, "host": "h", "error": None, "attempt": 1})
    )
    lines = [
        {
            "t": 1.0 * step,
            "stage": "distill.prediction",
            "epoch": step // 100,
            "step": step,
            "values": {
                "train/loss": 2.0 / step**0.5,
                "selection/accuracy": 0.5 + 0.0004 * step,
                "selection/mcc": 0.001 * step,
                "train/att_kl/1": 1.0 / step,
            },
        }
        for step in (100, 200, 300)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_points(root: Path, study: str, results: list[dict[str, Any]]) -> None:
    """The sweeper's list of expected runs."""
    points = [
        {"id": r["run"]["id"], "name": r["run"]["name"], "labels": r["labels"], "seed": r["run"]["seed"]}
        for r in results
    ]
    (root / study).mkdir(parents=True, exist_ok=True)
    (root / study / "study.json").write_text(json.dumps({"study": study, "points": points}))


def grid(study: str = "quickstart", seeds: int = 3, **changes: Any) -> list[dict[str, Any]]:
    """A full study: 2 tasks x 3 objectives x 3 inits x seeds."""
    return [make_result(study, t, o, i, s, **changes) for t in TASKS for o in LEVEL for i in GAIN for s in range(seeds)]


def write_mlflow(root: Path, study: str, results: list[dict[str, Any]]) -> str:
    """A store as kdexp's tracking leaves it, written through MLflow's own interface. Returns its URI."""
    import mlflow

    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(study)
    experiment = (
        found.experiment_id
        if found
        else client.create_experiment(study, artifact_location=str(root / "artifacts" / study))
    )
    client.create_run(experiment, tags={"kdexp.kind": "study", "kdexp.study": study}, run_name=study)
    for result in results:
        tags = {
            "kdexp.kind": "run",
            "kdexp.status": "finished",
            "kdexp.study": study,
            "kdexp.run_id": result["run"]["id"],
        }
        run = client.create_run(experiment, tags=tags, run_name=result["run"]["name"])
        client.log_text(run.info.run_id, json.dumps(result), "result.json")
        client.set_terminated(run.info.run_id)
    return uri
