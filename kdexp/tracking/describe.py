"""A run in MLflow's terms: params, tags and final metrics, as pure functions of what the run left on disk."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from kdexp.common.registry import by_name
from kdexp.common.results import score
from kdexp.config.identity import LABELS, PLACES, SCIENCE, named

if TYPE_CHECKING:
    from kdexp.tracking.files import Facts

PARAM_LENGTH = 6000  # MLflow's limits, in characters
TAG_LENGTH = 5000
NAME_LENGTH = 250


def params_of(config: dict[str, Any]) -> dict[str, str]:
    """What a run is, as flat MLflow params: ``objective``, ``init``, ... by their short names, then their settings.

    Left out is what nobody compares runs by: classes, what is not set, lists of numbers (betas, sizes), places, and
    ``${...}`` that was not resolved. Values are cut at MLflow's limit; the whole config is an artifact.
    """
    flat: dict[str, str] = named(config)
    for group in SCIENCE:
        flat |= _flat(by_name(config[group]), group) if group in config else {}
    dtype = (config.get("runtime") or {}).get("dtype")
    flat |= {} if dtype is None else {"runtime.dtype": str(dtype)}
    left_out = {f"{group}.{key}" for group, keys in PLACES.items() for key in keys} | {f"{g}.name" for g in LABELS}
    return {clean(k): v[:PARAM_LENGTH] for k, v in flat.items() if k not in left_out and "${" not in v}


def _flat(value: Any, path: str) -> dict[str, str]:
    if isinstance(value, dict):
        flat: dict[str, str] = {}
        for key, part in value.items():
            flat |= {} if key == "_target_" else _flat(part, f"{path}.{key}")
        return flat
    if value is None or (isinstance(value, list) and all(isinstance(one, (int, float)) for one in value)):
        return {}
    return {path: value if isinstance(value, str) else json.dumps(value, default=str)}


def tags_of(facts: Facts) -> dict[str, str]:
    """The tags of a run: who it is, short as its params are and as ``kdexp.*``; its state and origin."""
    known = {**facts.labels, **({"seed": str(facts.config["seed"])} if "seed" in facts.config else {})}
    tags = known | {f"kdexp.{key}": name for key, name in known.items()}
    tags |= {"kdexp.study": facts.study, "kdexp.hash": facts.name.rsplit("-", 1)[-1], "kdexp.status": facts.state}
    extra = {
        "kdexp.run_id": facts.result.get("run", {}).get("id"),
        "kdexp.metric": facts.result.get("task", {}).get("metric"),
        "kdexp.origin": facts.result.get("origin"),
        "kdexp.hub_commit": facts.result.get("task", {}).get("hub_commit"),
        "kdexp.error": facts.status.get("error"),
    }
    return tags | {name: str(value)[:TAG_LENGTH] for name, value in extra.items() if value is not None}


def final_metrics(result: dict[str, Any]) -> dict[str, float]:
    """``score``, and ``final/...``, ``best/...``, ``cost/...`` and ``stage/...`` numbers of a ``result.json``.

    ``score`` is the number that tables report, in points: the task's metric on validation, times 100. The others are
    as the result has them.
    """
    if not result:
        return {}
    reported = score(result)
    teacher = result.get("teacher") or {}
    task = result.get("task") or {}
    majority = dict(task.get("majority") or {})
    groups: dict[str, Any] = {f"final/{split}": scores for split, scores in (result.get("scores") or {}).items()}
    groups["final/majority"] = majority.pop("validation", None)
    groups |= {f"final/majority/{split}": scores for split, scores in majority.items()}
    groups |= {f"final/teacher/{split}": scores for split, scores in (teacher.get("scores") or {}).items()}
    groups["best"] = {k: v for k, v in (result.get("best") or {}).items() if k in ("epoch", "step")}
    groups["cost"] = result.get("cost")
    groups["student"] = {"parameters": (result.get("student") or {}).get("parameters")}
    groups["teacher"] = {"parameters": teacher.get("parameters")}
    groups |= {f"stage/{stage.get('name')}": stage for stage in result.get("stages") or []}
    return ({} if reported is None else {"score": 100 * reported[1]}) | {
        f"{prefix}/{name}": float(value)
        for prefix, values in groups.items()
        for name, value in (values or {}).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def clean(name: str) -> str:
    """``name`` in the characters, and cut to the length, that MLflow allows; it must also be a plain relative path."""
    parts = re.sub(r"[^\w\-. :/]", "_", name).split("/")
    return "/".join("_" if set(part) == {"."} else part for part in parts if part)[:NAME_LENGTH].rstrip("/") or "_"
