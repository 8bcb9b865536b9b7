"""A run's ``result.json``: read and written, the number of its layout, and what is asked of it again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdexp.common import files

LAYOUT = 1
"""Raised by hand when the layout of result.json changes, so that nobody reads it wrongly."""
RESULT = "result.json"
SHAPE = {"run": dict, "task": dict, "scores": dict, "student": dict, "cost": dict}
"""What a result must have to be one, whoever wrote it."""


def read(run_dir: Path) -> dict[str, Any] | None:
    """Return a finished run's result, or None.

    Raises:
        Damaged: it is there, and not what was written.
    """
    return files.read_record(run_dir / RESULT, SHAPE)


def write(run_dir: Path, run_result: dict[str, Any]) -> None:
    """Write a run's result, atomically: from now on the run is finished."""
    files.write_record(run_dir / RESULT, run_result)


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
