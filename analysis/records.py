"""One run's ``result.json`` -> the rows that tables are made of. Pure: no files, no pandas.

Two kinds of rows come out:

* one **run row**: labels, data and selection, cost, sizes, settings (as canonical JSON);
* several **score rows** ``(run, who, split, metric, value)`` with ``who`` = ``student``, ``teacher`` or ``majority``.

Scores stay as they are stored (fractions); tables multiply by 100.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any

from kdexp.common.files import Damaged, parse_record
from kdexp.common.results import LAYOUT
from kdexp.config.identity import LABELS

REQUIRED = ("run", "labels", "science", "task", "selection", "scores", "student", "cost")
FINETUNE = "finetune"  # the objective that distils nothing


def read(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse and check one result. ``ValueError`` names the file and what is wrong with it."""
    try:
        result = parse_record(text, where, {"schema": int})
    except Damaged as error:
        raise ValueError(f"{error}; run the study again to repair it") from None
    if result.get("schema") != LAYOUT:
        found = result.get("schema")
        raise ValueError(
            f"{where}: schema {found}, but this analysis reads schema {LAYOUT}; use the kdexp that wrote it"
        )
    missing = [key for key in REQUIRED if key not in result] + [
        f"labels.{k}" for k in LABELS if k not in result.get("labels", {})
    ]
    if missing:
        raise ValueError(f"{where}: lacks {', '.join(missing)}; run the study again to repair it")
    return result


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def run_row(result: dict[str, Any]) -> dict[str, Any]:
    """The flat row of one run; unknown numbers are NaN, unknown words empty."""
    run, task, student, cost = result["run"], result["task"], result["student"], result["cost"]
    teacher, runtime = result.get("teacher") or {}, result.get("runtime") or {}
    stages = result.get("stages") or []
    return {
        "run": run["id"],
        "name": run["name"],
        "study": run["study"],
        "seed": int(run["seed"]),
        **{key: str(result["labels"][key]) for key in LABELS},
        "kind": task.get("kind", ""),
        "metric": task["metric"],
        "num_labels": _number(task.get("num_labels")),
        "data_hash": task["data_hash"],
        "selection": result["selection"],
        "rows": _number((task.get("scored") or task.get("rows") or {}).get("validation")),
        "seconds": _number(cost.get("seconds")),
        "train_seconds": _number(cost.get("train_seconds")),
        "steps": _number(cost.get("steps")),
        "stages": len(stages),
        "reused": sum(bool(s.get("reused")) for s in stages),
        "work": _canonical({str(s.get("key")): _number(s.get("seconds")) for s in stages}),
        "examples_per_s": _number(stages[-1].get("examples_per_s")) if stages else math.nan,
        "peak_memory_mb": max((_number(s.get("peak_memory_mb")) for s in stages), default=math.nan),
        "parameters": _number(student.get("parameters")),
        "size_bytes": _number(student.get("size_bytes")),
        "layers": _number(student.get("layers")),
        "hidden_size": _number(student.get("hidden_size")),
        "efficiency": _canonical(student.get("efficiency") or {}),
        "teacher_parameters": _number(teacher.get("parameters")),
        "teacher_layers": _number(teacher.get("layers")),
        "teacher_key": str(teacher.get("key") or teacher.get("name") or ""),
        "teacher_efficiency": _canonical(teacher.get("efficiency") or {}),
        "best_epoch": _number((result.get("best") or {}).get("epoch")),
        "device": str(runtime.get("device", "")),
        "dtype": str(runtime.get("dtype", "")),
        "hardware": str(runtime.get("hardware", "")),
        "versions": _canonical(runtime.get("versions") or {}),
        "finished": str(result.get("finished", "")),
        "folder": str(run.get("folder", "")),
        "predictions": str((result.get("predictions") or {}).get("validation", "")),
        **settings_row(result["science"]),
    }


def computed(work: Iterable[str]) -> float:
    """Seconds that runs have computed, from their ``work``: each stage once, whoever built it, and no waiting."""
    stages: dict[str, float] = {}
    for one in work:
        stages.update(json.loads(one))
    return sum(seconds for seconds in stages.values() if not math.isnan(seconds))


def settings_row(science: dict[str, Any]) -> dict[str, str]:
    """A run's settings as a row keeps them: canonical JSON, and a hash that all runs of a cell share (seeds aside)."""
    rest = {key: value for key, value in flatten(science).items() if key != "selection" and not is_seed(key)}
    return {"settings": _canonical(science), "settings_hash": _digest(rest)}


def score_rows(result: dict[str, Any]) -> list[tuple[str, str, str, str, float]]:
    """(run, who, split, metric, value) for the student, its teacher and the majority answer."""
    run = result["run"]["id"]
    groups = {
        "student": result["scores"],
        "teacher": (result.get("teacher") or {}).get("scores") or {},
        "majority": result["task"].get("majority") or {},
    }
    return [
        (run, who, split, metric, float(value))
        for who, splits in groups.items()
        for split, metrics in splits.items()
        for metric, value in (metrics or {}).items()
        if value is not None and math.isfinite(value)  # e.g. the correlation of a constant answer
    ]


@functools.lru_cache(maxsize=1 << 17)
def settings_of(text: str) -> dict[str, Any]:
    """A run's ``settings`` (canonical JSON) as dotted keys; kept, so not to be changed."""
    return flatten(json.loads(text))


def method(text: str) -> str:
    """The objective's own name in a run's ``settings``, whatever its start (the label of a fine-tuned one differs)."""
    return str(settings_of(text).get("objective.name", ""))


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings -> dotted keys; lists stay whole."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            out.update(flatten(value, f"{name}."))
        else:
            out[name] = value
    return out


def is_seed(key: str) -> bool:
    """Whether a dotted setting is a seed: runs of one cell may differ in those."""
    return key.rsplit(".", 1)[-1] == "seed"


def differing(settings: list[str], *, seeds: bool = False) -> dict[str, list[Any]]:
    """Dotted keys in which several settings (canonical JSON) differ, each with its distinct values; seeds if asked."""
    flat = [settings_of(text) for text in settings]
    out = {}
    for key in sorted({key for one in flat for key in one}):
        values = {json.dumps(one.get(key)): one.get(key) for one in flat}
        if len(values) > 1 and (seeds or not is_seed(key)):
            out[key] = list(values.values())
    return out


def _digest(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:16]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
