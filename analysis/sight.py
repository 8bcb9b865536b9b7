"""What a grid could decide, before it is run: each claim's smallest effect that the study would find.

A point is what a run would be: ``{"labels": ..., "science": ..., "seed": ...}`` as its result would say it. How much a
run varies has to be known: :func:`spread` reads it from finished runs. ``dry=true`` prints :func:`outlook`, asked by
:mod:`analysis.plan`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import designs, records, statements
from .collect import Collected, collect
from .contrasts import Block
from .evidence import Scores, gather
from .power import Design, minimum_effect, seeds_for

LEAST = 8  # degrees of freedom below which a spread is too rough to plan with: its own error is then above a quarter


@dataclass(frozen=True)
class Sight:
    """What a claim needs: it ``sees`` an effect of so many points (infinite: no verdict from so few seeds).

    ``needed``: seeds that would see an effect of ``delta``, the smallest that matters; None: more than 1,000.
    """

    id: str
    primary: bool
    tasks: tuple[str, ...]
    sees: float
    delta: float
    needed: int | None

    def __str__(self) -> str:
        """One line for people."""
        role = "primary" if self.primary else "exploratory"
        seen = f"sees {self.sees:.1f} points" if math.isfinite(self.sees) else "sees nothing, a verdict needs 3 seeds"
        more = "more than 1,000" if self.needed is None else self.needed
        enough = "" if self.sees <= self.delta else f"; {self.delta:g} would need {more} seeds"
        return f"{self.id} ({role}, {', '.join(self.tasks)}): {seen}{enough}"

    def in_spreads(self) -> str:
        """The same where ``sees`` is in standard deviations of a run, so that nothing can be said of ``delta``."""
        seen = f"sees {self.sees:.1f}" if math.isfinite(self.sees) else "sees nothing, a verdict needs 3 seeds"
        return f"{self.id} ({', '.join(self.tasks)}): {seen}"


def spread(collected: Collected, metric: str = "chosen", least: int = 1) -> dict[str, float]:
    """Standard deviation of a run around its cell and its seed, in points, a task of a finished study.

    Tasks with fewer than ``least`` degrees of freedom are left out.
    """
    scores, out = Scores(collected), {}
    for task in scores.of(metric):
        total, df = scores.pool(metric, task).residual
        if df >= least and total > 0:
            out[task] = math.sqrt(total / df)
    return out


def outlook(points: Sequence[Mapping[str, Any]], study: str, root: Path) -> list[str]:
    """For each primary claim the smallest effect that the grid would find, power 0.8.

    The spread of a run is read from the finished runs of the study, or of the studies beside it that have the same
    tasks; where there are none, effects are multiples of it.
    """
    tasks = sorted({str(point["labels"]["task"]) for point in points})
    known, sources = _known_spreads(root, study, tasks)
    if set(known) == set(tasks):
        said = ", ".join(f"{task} {known[task]:.1f} (from {sources[task]})" for task in tasks)
        head = f"sight    effects found with a power of 0.8; a run's standard deviation, in points: {said}"
        seen = [str(one) for one in sights(points, study, known) if one.primary]
    else:
        lacking = ", ".join(task for task in tasks if task not in known)
        head = (
            "sight    effects found with a power of 0.8, in standard deviations of a run, which is not known: no study "
            f"in {root} has enough finished runs of {lacking}"
        )
        seen = [one.in_spreads() for one in sights(points, study, 1.0) if one.primary]
    return [head, *(f"         {line}" for line in seen or ["this form of the study has the runs of no primary claim"])]


def _known_spreads(root: Path, study: str, tasks: Sequence[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Spread by task and the study that it was read from; the study itself comes first, then the others by name."""
    known: dict[str, float] = {}
    sources: dict[str, str] = {}
    others = sorted(path.parent.name for path in root.glob("*/study.json"))
    for name in sorted(others, key=lambda other: other != study):
        if set(known) == set(tasks):
            break
        try:
            runs = collect(name, root, "folders", incomplete="allow", mixture="allow", cache=False)
        except ValueError:  # nothing finished, or nothing that can be read: its own commands say so
            continue
        new = {task: std for task, std in spread(runs, least=LEAST).items() if task in tasks and task not in known}
        known |= new
        sources |= dict.fromkeys(new, name)
    return known, sources


def sights(points: Sequence[Mapping[str, Any]], study: str, std: Mapping[str, float] | float) -> list[Sight]:
    """What each claim would see that the points have runs for, the study's primary claims first.

    Args:
        points: the grid.
        study: its name; says which claims are primary and how small an effect matters.
        std: of a run around its cell and seed, in points: one for all tasks, or by task label.

    Raises:
        ValueError: a task has no std.
    """
    known, delta = designs.entry(study)
    scores = Scores(_as_if_run(points, study))
    out = []
    for claim in statements.load():
        parts = gather(scores, claim, {}).parts
        if all(parts):
            primary = claim["id"] in known.primary
            forms = [_design(part, std, max(len(known.primary), 1) if primary else 1) for part in parts]
            matters = float(claim.get("negligible", delta))
            needed = [seeds_for(design, matters) for design in forms]
            most = None if None in needed else max(one for one in needed if one is not None)
            tasks = tuple(sorted({task for part in parts for task in part}))
            seen = max(minimum_effect(design) for design in forms)
            out.append(Sight(claim["id"], primary, tasks, seen, matters, most))
    return sorted(out, key=lambda one: not one.primary)


def _design(part: dict[str, Block], std: Mapping[str, float] | float, family: int) -> Design:
    """A part of a claim as a design: the worst of its tasks in seeds, cells and weights."""
    given = {task: std.get(task, math.nan) if isinstance(std, Mapping) else float(std) for task in part}
    lacking = [task for task, value in given.items() if not value > 0]
    if lacking:
        raise ValueError(
            f"std has no positive value for {', '.join(lacking)}; give points, or one number for all tasks"
        )
    used = {task: block.weights[block.weights != 0] for task, block in part.items()}
    heaviest = max(used.values(), key=lambda weights: float((weights**2).sum()))
    seeds = min(
        int(np.isfinite(block.pool.scores[block.weights != 0]).all(axis=0).sum()) for block in part.values()
    )  # fmt: skip
    cells = min(len(block.weights) for block in part.values())
    return Design(seeds, tuple(given.values()), cells, tuple(float(weight) for weight in heaviest), family)


def _as_if_run(points: Sequence[Mapping[str, Any]], study: str) -> Collected:
    """The grid as a study whose runs all scored 0 in every metric of their task: only who meets whom is asked."""
    runs, scores = [], []
    for number, point in enumerate(points):
        task = point["science"]["task"]
        labels = {key: str(point["labels"][key]) for key in records.LABELS}
        settings = records.settings_row(point["science"])
        runs.append({"run": str(number), "seed": point["seed"], "metric": task["metric"], **labels, **settings})
        scores += [(str(number), "student", "validation", metric, 0.0) for metric in task["metrics"]]
    frame = pd.DataFrame(scores, columns=["run", "who", "split", "metric", "value"])
    return Collected(study, Path(study), "a grid that was not run", pd.DataFrame(runs), frame)
