"""A study as a whole, for those who show it: its table, and its cells with mean, spread, interval and tie group.

MLflow's view of a study asks for it while runs end (entry point ``kdexp.summary``); nothing of MLflow is known here.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from kdexp.config.identity import LABELS

from . import designs, render
from .collect import collect
from .grid import Grid, build
from .records import FINETUNE


def summary(study_dir: Path) -> dict[str, Any]:
    """What can be said of a study now, finished or not.

    Returns:
        ``purpose`` (a sentence), ``text`` (Markdown: that, and its table), ``files`` (name -> content: its table),
        ``varied`` (labels, seed and dotted settings that differ between runs), ``metrics`` (name -> number: of each
        task the best cell, the mean of all runs, teacher and majority) and ``cells``, each ``labels`` (name -> value,
        with ``task`` and ``metric``), ``metrics`` (``mean``, ``std``, ``n``, ``low``, ``high`` of the 95 % interval;
        points) and ``group`` (its letters within the task).

    Raises:
        ValueError: nothing is finished, or nothing that can be read.
    """
    collected = collect(study_dir.name, study_dir.parent, "folders", incomplete="allow", mixture="allow")
    grid = build(collected)
    purpose = designs.entry(collected.study)[0].purpose
    text = f"{purpose}\n\n{render.markdown(grid)}"
    return {
        "purpose": purpose,
        "text": text,
        "files": {"scores.md": text, "scores.csv": render.csv(grid.frame()), "scores.html": render.html(grid)},
        "varied": [key for key in (*LABELS, "seed") if collected.runs[key].nunique() > 1] + [*collected.by],
        "metrics": _heads(grid),
        "cells": _cells(grid),
    }


def _cells(grid: Grid) -> list[dict[str, Any]]:
    out = []
    for row in grid.rows:
        if row.kind not in (FINETUNE, "method"):
            continue
        labels = dict(zip(grid.keys, row.labels, strict=True))
        for column, cell in zip(grid.columns, row.cells, strict=True):
            if cell is not None:
                numbers = {"mean": cell.mean, "std": cell.std, "n": float(cell.n), "low": cell.low, "high": cell.high}
                out.append(
                    {
                        "labels": {**labels, "task": column.name, "metric": column.metric},
                        "metrics": {name: value for name, value in numbers.items() if math.isfinite(value)},
                        "group": cell.group,
                    }
                )
    return out


def _heads(grid: Grid) -> dict[str, float]:
    """The best cell's mean, the mean of all runs, the teacher's and the majority's score of each task."""
    out: dict[str, float] = {}
    for index, column in enumerate(grid.columns):
        runs = [value for row in grid.rows if row.kind in (FINETUNE, "method") for value in row.values[index].values()]
        out |= {f"mean/{column.name}": statistics.mean(runs)} if runs else {}
        for row in grid.rows:
            cell, kind = row.cells[index], row.kind if row.kind in ("teacher", "majority") else "best"
            if cell is not None:
                name = f"{kind}/{column.name}"
                out[name] = max(out.get(name, -math.inf), cell.mean)
    return out
