"""A study as data frames, for whoever goes on with pandas: its runs, and its table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from . import records
from .collect import collect
from .grid import build

COLUMNS = (
    "teacher", "student", "objective", "mapping", "init", "task", "seed", "score", "metric", "selection", "seconds",
    "parameters", "size_bytes", "name", "run", "folder",
)  # fmt: skip
"""Columns of :func:`runs` that stand first: what a run is called, how it did, what it took, where it is."""
AVERAGE = "average"
"""What the grid calls the average of all tasks."""
TABLE = ("mean", "std", "n", "low", "high", "mark", "group")
"""What :func:`table` says of a cell."""


def runs(study: str, root: str | Path = "multirun", settings: str | Iterable[str] = "varied") -> pd.DataFrame:
    """Return a study's finished runs, a row each; scores are fractions.

    Args:
        study: its name.
        root: the folder that holds the studies.
        settings: which have columns under their dotted names: ``varied``, those in which the runs differ; ``all``; or
            the names.

    Returns:
        :data:`COLUMNS` (``score`` is ``metric`` on validation), one column a score under ``WHO.SPLIT.METRIC`` (as
        ``student.validation.f1``), then the settings.

    Raises:
        ValueError: there is no such study, none of its runs is finished, or no run has such a setting.
    """
    found = collect(study, root, "folders", incomplete="allow", mixture="allow", extra="include", by=())
    frame = found.runs.reset_index(drop=True)
    scores = found.scores.assign(what=found.scores[["who", "split", "metric"]].agg(".".join, axis=1))
    wide = scores.pivot(index="run", columns="what", values="value").rename_axis(columns=None)
    frame = frame.merge(wide, how="left", left_on="run", right_index=True)
    chosen = "student.validation." + frame["metric"]
    frame["score"] = [row.get(name) for name, (_, row) in zip(chosen, frame.iterrows(), strict=True)]
    keys = _keys(frame, settings)
    said = [records.settings_of(text) for text in frame["settings"]]
    unknown = [key for key in keys if not any(key in one for one in said)]
    if unknown:
        raise ValueError(
            f"settings={', '.join(unknown)}: no run of study {study} has that; settings='all' has what is."
        )
    values = pd.DataFrame({key: [one.get(key) for one in said] for key in keys}, index=frame.index, dtype=object)
    return pd.concat([frame[[*COLUMNS, *wide.columns]], values.infer_objects()], axis=1)


def _keys(frame: pd.DataFrame, settings: str | Iterable[str]) -> list[str]:
    """Return the dotted settings that are shown; of ``varied``, those that another column says already are left out."""
    if settings not in ("varied", "all"):
        return list(dict.fromkeys([settings] if isinstance(settings, str) else settings))
    kept = [*frame["settings"]]
    if settings == "all":
        return sorted({key for text in kept for key in records.settings_of(text)} - {*frame})
    keys = records.differing(kept, seeds=True)
    said = {*frame, *(f"{label}.{part}" for label in records.LABELS for part in ("name", "_target_"))}
    return [key for key in keys if key not in said]


def table(study: str, root: str | Path = "multirun", metric: str = "", **options: Any) -> pd.DataFrame:
    """Return what ``python -m kdexp tables`` prints, a row a cell; scores x 100.

    Args:
        study: its name.
        root: the folder that holds the studies.
        metric: one for all tasks; '' = each task's own.
        options: as the verb's: ``incomplete``, ``extra``, ``mixture``, ``by``.

    Returns:
        ``kind`` (majority, teacher, finetune or method), the labels of the row, ``task``, ``split``, ``metric``, and
        :data:`TABLE`; notes under the table are in ``attrs["notes"]``. The average of several tasks is the task
        :data:`AVERAGE`.

    Raises:
        ValueError: there is no such study, or it is incomplete or a mixture and that was not allowed.
    """
    grid = build(collect(study, root, "folders", **options), metric=metric)
    frame = grid.frame()
    if sum(column.counted for column in grid.columns) < 2:
        frame = frame[frame["task"] != AVERAGE]
    frame = frame[["kind", *grid.keys, "task", "split", "metric", *TABLE]].reset_index(drop=True)
    frame.attrs["notes"] = list(grid.notes)
    return frame
