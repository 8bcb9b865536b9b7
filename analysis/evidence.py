"""The runs that a claim is about, laid out as contrasts: cells, weights, and the tasks that do not count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from . import gate, records, statements
from .collect import Collected
from .contrasts import Block, Pool
from .select import select, settings_columns

NOTHING = "no runs of any side"


@dataclass(frozen=True)
class Evidence:
    """A claim's runs, laid out.

    ``parts``: task -> block, a part of the claim each. ``dropped``: tasks that do not count, with the reason.
    ``absent``: what is missing where no task is left.
    """

    parts: list[dict[str, Block]]
    dropped: dict[str, str]
    absent: str


class Scores:
    """The scores of a study on one split (x100) as arrays (cells, seeds) a task, one set a metric."""

    def __init__(self, collected: Collected, split: str = "validation"):
        self.collected, self.split = collected, split
        self.kept: dict[str, dict[str, pd.DataFrame]] = {}
        self.pools: dict[tuple[str, str], Pool] = {}

    def of(self, metric: str) -> dict[str, pd.DataFrame]:
        """Task -> scores, rows cells (``settings_hash``), columns seeds; ``chosen``: each task's own metric."""
        if metric not in self.kept:
            runs = self.collected.runs[["run", "task", "seed", "settings_hash", "metric"]]
            scores = self.collected.scores
            scores = scores[(scores["who"] == "student") & (scores["split"] == self.split)]
            scores = scores.merge(runs.rename(columns={"metric": "chosen"}), on="run")
            scores = scores[scores["metric"] == (scores["chosen"] if metric == "chosen" else metric)]
            scores = scores.assign(value=scores["value"] * 100)
            self.kept[metric] = {
                str(task): group.pivot_table(index="settings_hash", columns="seed", values="value")
                for task, group in scores.groupby("task", sort=True)
            }
        return self.kept[metric]

    def pool(self, metric: str, task: str) -> Pool:
        """The error term of a task, made once."""
        if (metric, task) not in self.pools:
            self.pools[metric, task] = Pool(self.of(metric)[task].to_numpy())
        return self.pools[metric, task]


def _side(collected: Collected, wanted: dict[str, Any], claim: dict[str, Any]) -> dict[tuple[str, ...], list[str]]:
    """The cells that a side selects, by task and the values of ``within``."""
    runs = select(collected.runs, wanted)
    if claim["tasks"] != "all":
        names = [records.settings_of(text).get("task.name") for text in runs["settings"]]
        runs = runs[pd.Series(names, index=runs.index, dtype=object).isin(claim["tasks"])]
    within = claim.get("within", [])
    runs = settings_columns(runs, [key for key in within if key not in records.LABELS], strict=False)
    groups = runs.groupby(["task", *within], sort=True)["settings_hash"].unique()
    return {
        tuple(str(one) for one in (key if isinstance(key, tuple) else (key,))): list(cells)
        for key, cells in groups.items()
    }


def _weights(sides: list[tuple[float, dict[tuple[str, ...], list[str]]]]) -> dict[str, dict[str, float]]:
    """Task -> cell -> weight: sides are compared where all of them are there, groups and their cells count alike."""
    shared = set.intersection(*(set(side) for _, side in sides))
    out: dict[str, dict[str, float]] = {}
    for task in sorted({key[0] for key in shared}):
        groups = [key for key in shared if key[0] == task]
        cells = out.setdefault(task, {})
        for sign, side in sides:
            for key in groups:
                for cell in side[key]:
                    cells[cell] = cells.get(cell, 0.0) + sign / len(groups) / len(side[key])
    return out


def gather(scores: Scores, claim: dict[str, Any], signal: dict[str, gate.Signal]) -> Evidence:
    """Everything a claim needs from the study's runs."""
    collected, metric = scores.collected, claim.get("metric", "chosen")
    parts, dropped, empty = [], {}, []
    for part in statements.sides(claim):
        sides = [(sign, _side(collected, wanted, claim)) for sign, wanted in part]
        empty += [wanted for (_, wanted), (_, side) in zip(part, sides, strict=True) if not side]
        blocks = {}
        for task, cells in _weights(sides).items() if all(side for _, side in sides) else ():
            table = scores.of(metric).get(task)
            if table is None and scores.split != "validation":
                dropped[task] = f"it has no {scores.split}"
            elif table is None or not set(cells) <= set(table.index):
                dropped[task] = f"{metric} was not recorded" if metric != "chosen" else "a run has no finite score"
            elif task in signal and (why := signal[task].why([cell for cell, w in cells.items() if w])):
                dropped[task] = why
            elif not np.isfinite(table.loc[[cell for cell, w in cells.items() if w]].to_numpy()).all(axis=0).any():
                dropped[task] = "its cells share no seed"
            else:
                blocks[task] = Block(
                    scores.pool(metric, task), np.array([cells.get(cell, 0.0) for cell in table.index])
                )
        parts.append(blocks)
    asked = sum(len(part) for part in statements.sides(claim))
    return Evidence(parts, dropped, NOTHING if len(empty) == asked else _absent(empty))


def _absent(empty: list[dict[str, Any]]) -> str:
    """Which sides have no runs, or that the sides have nothing in common."""
    words = [
        ", ".join(f"{key}={'|'.join(value) if isinstance(value, list) else value}" for key, value in one.items())
        for one in empty
    ]
    return f"no runs with {'; '.join(dict.fromkeys(words))}" if words else "the sides share no task and start"


def partial_tasks(collected: Collected) -> set[str]:
    """Labels of the tasks that are not what their name promises: the program marks them (``qnli_partial``)."""
    tasks = collected.runs[["task", "settings"]].drop_duplicates("task")
    names = [records.settings_of(text).get("task.name") for text in tasks["settings"]]
    return {label for label, name in zip(tasks["task"], names, strict=True) if name is not None and label != name}
