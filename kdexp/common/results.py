"""A run's ``result.json``: the number of its layout, and what is asked of it again and again."""

from __future__ import annotations

from typing import Any

LAYOUT = 1
"""Raised by hand when the layout of result.json changes, so that nobody reads it wrongly."""


def score(run_result: dict[str, Any] | None) -> tuple[str, float] | None:
    """Return (metric, value on validation) of a result, or None where there is none."""
    if not run_result:
        return None
    metric = (run_result.get("task") or {}).get("metric")
    value = ((run_result.get("scores") or {}).get("validation") or {}).get(metric)
    return None if value is None else (str(metric), float(value))


def seconds(run_result: dict[str, Any] | None) -> float | None:
    """Return the wall-clock cost of a result, or None."""
    value = ((run_result or {}).get("cost") or {}).get("seconds")
    return None if value is None else float(value)
