"""Training histories: ``metrics.jsonl`` of every run (or MLflow's copy of it) -> one table -> learning curves and
matching losses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .collect import Collected, history
from .figures import COLOURS, drawn, looks

SELECTING = ("selection/", "heldout/", "validation/")
NOT_MATCHED = {"train/loss", "train/rate", "train/grad_norm", "train/ce", "train/kd", "train/finetune"}
ELSEWHERE = ("teacher", "system")  # stages that are not the student's
COLUMNS = ["run", "stage", "epoch", "step", "key", "value"]


def read(path: Path) -> list[tuple[str, int, int, str, float]]:
    """(stage, epoch, step, key, value) of one run. A torn last line (the run was killed while writing) is left out.

    Steps count on from stage to stage, so that a run has one time axis; the teacher's stages and the machine's load are
    left out.
    """
    out: list[tuple[str, int, int, str, float]] = []
    starts: dict[str, int] = {}
    last = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            values, stage, step = dict(entry["values"]), str(entry.get("stage", "")), int(entry.get("step") or 0)
        except (ValueError, KeyError, TypeError):
            continue
        if stage.startswith(ELSEWHERE):
            continue
        now = starts.setdefault(stage, last) + step
        last = max(last, now)
        epoch = int(entry.get("epoch") or 0)
        out += [(stage, epoch, now, str(key), float(value)) for key, value in values.items() if value is not None]
    return out


def histories(found: Collected, *, most: int = 2000) -> pd.DataFrame:
    """The histories of a study's runs, distillation stages only: from their files, else from MLflow.

    At most ``most`` runs: more would not be seen in a figure.
    """
    rows: list[tuple[str, str, int, int, str, float]] = []
    elsewhere: dict[str, str] = {}
    for one in found.runs.head(most).itertuples():
        path = found.folder / one.name / "metrics.jsonl"
        if path.is_file():
            rows += [(one.run, *row) for row in read(path)]
        elif found.uri and one.mlflow_run:
            elsewhere[one.mlflow_run] = one.run
    if elsewhere:
        for tracked, key, step, value in history(found.uri, list(elsewhere)):
            stage, _, name = key.partition("/")  # the tracker names a metric STAGE/KEY
            if name.startswith(("train/", *SELECTING)) and not stage.startswith(ELSEWHERE):
                rows.append((elsewhere[tracked], stage, 0, step, name, value))
    return pd.DataFrame(rows, columns=COLUMNS)


def _panels(count: int, width: float = 3.0, height: float = 2.3, across: int = 3) -> tuple[Figure, list]:
    """A figure with ``count`` used axes."""
    across = min(across, count)
    down = math.ceil(count / across)
    figure = Figure(figsize=(across * width + 1.4, down * height), layout="constrained")
    axes = list(np.ravel(figure.subplots(down, across, squeeze=False)))
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def _line(axis, frame: pd.DataFrame, colour: str, label: str) -> None:
    """Mean over seeds with the band from lowest to highest, at steps that every seed has."""
    table = frame.pivot_table(index="step", columns="run", values="value", aggfunc="last")
    full = table.dropna() if table.notna().all(axis=1).sum() >= 2 else table
    axis.plot(full.index, full.mean(axis=1), color=colour, linewidth=1.2, marker="o", markersize=2, label=label)
    if full.shape[1] > 1:
        axis.fill_between(full.index, full.min(axis=1), full.max(axis=1), color=colour, alpha=0.15, linewidth=0)


def learning_curves(found: Collected, history: pd.DataFrame) -> Figure | None:
    """The chosen metric on the selecting split, a panel a task and init, a line an objective; None without any."""
    merged = history.merge(found.runs[["run", "task", "init", "objective", "metric"]], on="run")
    prefix = next((one for one in SELECTING if (merged["key"] == one + merged["metric"]).any()), None)
    if prefix is None:
        return None
    merged = merged[merged["key"] == prefix + merged["metric"]].assign(value=lambda frame: frame["value"] * 100)
    panels = list(merged.groupby(["task", "init"], sort=False))
    figure, axes = _panels(len(panels))
    look = looks(found.runs["objective"])
    for axis, ((task, init), group) in zip(axes, panels, strict=True):
        for objective, part in group.groupby("objective", sort=False):
            _line(axis, part, look[objective][0], drawn(objective))
        axis.set_title(drawn(f"{task}, init {init}"), fontsize=8)
        axis.set_ylabel(drawn(f"{group['metric'].iloc[0]} x 100"), fontsize=7)
        _plain(axis)
    _legend(figure, axes)
    return figure


def matching_losses(found: Collected, history: pd.DataFrame) -> Figure | None:
    """Losses on intermediate layers (each layer's, where logged), a panel a task and term; None without any."""
    merged = history[history["key"].str.startswith("train/") & ~history["key"].isin(NOT_MATCHED)]
    merged = merged[merged["value"] > 0].merge(found.runs[["run", "task", "init", "objective"]], on="run")
    if not len(merged):
        return None
    panels = list(merged.groupby(["task", "key"], sort=False))[:24]
    inits = list(dict.fromkeys(merged["init"]))
    figure, axes = _panels(len(panels))
    for axis, ((task, key), group) in zip(axes, panels, strict=True):
        for number, init in enumerate(inits):
            part = group[group["init"] == init]
            if len(part):
                _line(axis, part, COLOURS[number % len(COLOURS)], drawn(f"init {init}"))
        axis.set_title(drawn(f"{task}: {key.removeprefix('train/')}"), fontsize=8)
        axis.set_yscale("log")
        _plain(axis)
    _legend(figure, axes)
    return figure


def _plain(axis) -> None:
    """Small numbers, a grid, and whole updates: there is no half of one."""
    axis.tick_params(labelsize=7)
    axis.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))
    axis.grid(alpha=0.3)


def _legend(figure: Figure, axes: list) -> None:
    """One legend for all panels, outside of them."""
    known: dict[str, Artist] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    figure.legend(list(known.values()), list(known), fontsize=7, loc="outside right upper")
    figure.supxlabel("optimiser steps, all distillation stages", fontsize=8)
