"""The signal gate: which tasks of a study can say anything. Stated before the runs, looked at before any claim.

A student that answers with the most frequent class, whatever is done to it, has no noise and no effect; a mean over
tasks with such a one in it is precise and empty. A task counts only if

* its best teacher beats the majority answer by at least ``TEACHER`` points, and
* at least one arm of the study (the mean over its seeds) beats it by at least ``ERRORS`` standard errors. The arms that
  a claim compares count together, as their mean: a gate that the better of the two could open alone would let those
  tasks through where they happen to differ.

Measured in accuracy where that was recorded and counts examples, else in the task's chosen metric (of words, nearly
all are no entity: a teacher that finds every entity is a few points more accurate than one that finds none). The
standard error is that of a share on the validation examples, sqrt(p (1 - p) / n), for accuracies; for other metrics 1
/ sqrt(n), that of a correlation where there is none and more than that of any share.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import mean

import pandas as pd

from .collect import Collected

TEACHER = 10.0  # points
ERRORS = 2.0
OF_PARTS = ("tokens",)  # kinds of tasks whose accuracy counts parts of an example, not examples


@dataclass(frozen=True)
class Signal:
    """What the gate sees of one task, in points; NaN: not recorded (a teacher: the study has none for this task).

    ``arms``: the mean over seeds of every cell (``settings_hash``).
    """

    task: str
    metric: str
    majority: float
    teacher: float
    error: float
    arms: Mapping[str, float]

    def why(self, together: Collection[str] = ()) -> str:
        """Why the task falls out, empty where it counts; ``together``: cells that count as their mean."""
        if math.isnan(self.majority):
            return "its majority answer was not recorded"
        if math.isnan(self.error):
            return "the number of its validation examples was not recorded"
        gain = self.teacher - self.majority
        if gain < TEACHER:
            return f"its teacher is {gain:+.1f} points from the majority answer, {TEACHER:.0f} are needed"
        compared = [value for cell, value in self.arms.items() if cell in together]
        others = [value for cell, value in self.arms.items() if cell not in together]
        lead = max([*others, *([mean(compared)] if compared else [])]) - self.majority
        if lead < ERRORS * self.error:
            return f"its best arm is {lead:+.1f} points from the majority answer, {ERRORS * self.error:.1f} are needed"
        return ""


def standard_error(metric: str, share: float, rows: float) -> float:
    """Standard error in points of a score near ``share`` (a fraction) on ``rows`` validation examples."""
    return 100 * (math.sqrt(share * (1 - share) / rows) if metric == "accuracy" else 1 / math.sqrt(rows))


def signals(collected: Collected) -> dict[str, Signal]:
    """The gate on every task of a study."""
    scores = collected.scores[collected.scores["split"] == "validation"].merge(
        collected.runs[["run", "task", "kind", "metric", "settings_hash", "rows"]].rename(columns={"metric": "chosen"}),
        on="run",
    )
    return {str(task): _signal(str(task), group) for task, group in scores.groupby("task", sort=True)}


def _signal(task: str, scores: pd.DataFrame) -> Signal:
    have = set(scores.loc[scores["who"] == "student", "metric"])
    in_parts = scores["kind"].iloc[0] in OF_PARTS
    metric = "accuracy" if "accuracy" in have and not in_parts else str(scores["chosen"].iloc[0])
    of = scores[scores["metric"] == metric]
    students, teachers, floors = (of[of["who"] == who] for who in ("student", "teacher", "majority"))
    majority = float(floors["value"].max()) * 100
    teacher = float(teachers["value"].max()) * 100
    arms = {str(cell): float(value) * 100 for cell, value in students.groupby("settings_hash")["value"].mean().items()}
    error = standard_error(metric, majority / 100, float(scores["rows"].max()))
    return Signal(task, metric, majority, teacher, error, arms)


def note(gate: dict[str, Signal]) -> str:
    """The tasks that fall out, in one sentence; empty if there is none."""
    out = [f"{one.task} ({one.why()})" for one in gate.values() if one.why()]
    return f"Without signal, and so in no claim: {'; '.join(out)}." if out else ""
