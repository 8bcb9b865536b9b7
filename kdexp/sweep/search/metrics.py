"""What a search reads of a run: its evaluations while it lasts, its metrics at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdexp.run.spec import RunSpec
from kdexp.tracking.files import lines


@dataclass
class Tail:
    """New evaluations in a run's metrics file: those of the last stage, on the split that selects.

    A run that was killed and continued may have written an evaluation twice: it counts once.
    """

    path: Path
    name: str
    offset: int = 0
    steps: list[int] = field(default_factory=list)

    def new(self) -> list[tuple[int, float]]:
        """Return (number of the evaluation from 1, value) of what has been added since the last call."""
        added = []
        for offset, points in lines(self.path, self.offset):
            self.offset = offset
            for point in points or []:
                if point.name == self.name and point.step not in self.steps:
                    self.steps.append(point.step)
                    added.append((len(self.steps), point.value))
        return added


def selection_line(point: RunSpec) -> str:
    """Return the name that a run's evaluations on the selecting split have: ``<last stage>/selection/<metric>``."""
    return f"{point.outline[-1].name}/selection/{point.config.task.get('metric')}"


def measured(run_result: dict[str, Any] | None, path: str) -> float:
    """Return a metric of a result.

    Args:
        run_result: result.json.
        path: ``score`` (the task's metric on the split that selects), or a path such as ``student.parameters``.

    Raises:
        ValueError: it is not there, or no finite number.
    """
    run_result = run_result or {}
    if path == "score":
        value = ((run_result.get("best") or {}).get("scores") or {}).get((run_result.get("task") or {}).get("metric"))
    else:
        value = run_result
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"hydra.sweeper.metric={path}: result.json has {value!r} there, a finite number is needed.")
    return float(value)
