"""Stands in for kdexp.run.execute.execute: the same bookkeeping, but a run sleeps instead of training.

What a run does is told by the environment: STUB_SECONDS, STUB_FAIL (a part of the names that fail), STUB_COUNT
(a file that gets one line an execution). Its score is best at objective.temperature=4, and is written at every step.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from kdexp.common import files
from kdexp.common.stop import Stop
from kdexp.run.spec import RunSpec
from kdexp.run.stored import finished


def execute(spec: RunSpec) -> dict[str, Any]:
    """Sleep in small steps that are kept, so that a second attempt goes on where the first was stopped."""
    from filelock import FileLock

    where, config = spec.run_dir, spec.config.model_dump()
    done = finished(spec)
    if done is not None:
        return done
    where.mkdir(parents=True, exist_ok=True)
    stop = Stop()
    with FileLock(where / ".lock", timeout=0), stop.listening():
        _note(where.name)
        mark(where, "running")
        steps, value = 10, score(config)
        kept = files.read_json(where / "step.json") or 0
        for step in range(kept, steps):
            if stop():
                mark(where, "interrupted", stop.asked, stop.asked)
                raise RuntimeError("asked to stop")
            time.sleep(float(os.environ.get("STUB_SECONDS", "0.1")) / steps)
            files.write_json(where / "step.json", step + 1)
            _evaluated(where, step + 1, value)
        if os.environ.get("STUB_FAIL", "//") in where.name:
            mark(where, "failed", "ValueError: this one was meant to fail\nsecond line")
            raise ValueError("this one was meant to fail")
        result = {
            "run": {"id": spec.id},
            "task": {"metric": "accuracy"},
            "scores": {"validation": {"accuracy": 0.5}},
            "best": {"scores": {"accuracy": value}},
            "student": {"parameters": 1000 * config["student"]["num_layers"]},
            "cost": {"seconds": 2.0},
            "resumed_at": kept,
            "threads": os.environ.get("OMP_NUM_THREADS"),
        }
        files.write_json(where / "result.json", result)
        mark(where, "finished")
    return result


def score(config: dict[str, Any]) -> float:
    """Return a run's score: a larger student is a little better."""
    return (
        0.8
        - abs(float(config["objective"]["temperature"]) - 4) / 10
        + config["seed"] / 1000
        + config["student"]["num_layers"] / 100
    )


def mark(where: Path, now: str, error: str | None = None, signal: str | None = None) -> None:
    """Write status.json."""
    files.write_json(where / "status.json", {"state": now, "pid": os.getpid(), "error": error, "signal": signal})


def _evaluated(where: Path, step: int, value: float) -> None:
    line = {
        "t": time.time(),
        "stage": "distill.prediction",
        "epoch": 0,
        "step": step,
        "values": {"selection/accuracy": value},
    }
    with open(where / "metrics.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def _note(name: str) -> None:
    path = os.environ.get("STUB_COUNT")
    if path:
        with open(path, "a") as file:
            file.write(f"{name} {os.getpid()} {os.getppid()}\n")
