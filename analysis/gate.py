"""The signal gate: which tasks of a study can say anything. Stated before the runs, looked at before any claim.

A student that answers with the most frequent class, whatever is done to it, has no noise and no effect; a mean over
tasks with such a one in it is precise and empty. A task counts only if

* its best teacher beats the majority answer by at least ``TEACHER`` points, and
* at least one arm of the study (the mean over its seeds) beats it by at least ``ERRORS`` standard errors.

Measured in accuracy where that was recorded, else in the task's chosen metric. The standard error is that of a share on
the validation examples, sqrt(p (1 - p) / n), for accuracies; for other metrics 1 / sqrt(n), that of a correlation
where there is none and more than that of any share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from analysis.collect import Collected

TEACHER = 10.0  # points
ERRORS = 2.0


@dataclass(frozen=True)
class Signal:
    """What the gate saw of one task, in points; ``why`` it falls out, empty where it counts. NaN: not recorded."""

    task: str
    metric: str
    majority: float
    teacher: float
    best: float
    error: float
    why: str


def judge(majority: float, teacher: float, best: float, error: float) -> str:
    """Why a task falls out, empty where it counts. All in points; ``teacher`` NaN: the study has none for this task."""
    if math.isnan(majority):
        return "its majority answer was not recorded"
    if math.isnan(error):
        return "the number of its validation examples was not recorded"
    if teacher - majority < TEACHER:
        return f"its teacher is {teacher - majority:+.1f} points from the majority answer, {TEACHER:.0f} are needed"
    if math.isnan(best) or best - majority < ERRORS * error:
        return (
            f"its best arm is {best - majority:+.1f} points from the majority answer, {ERRORS * error:.1f} are needed"
        )
    return ""


def standard_error(metric: str, share: float, rows: float) -> float:
    """Standard error in points of a score near ``share`` (a fraction) on ``rows`` validation examples."""
    return 100 * (math.sqrt(share * (1 - share) / rows) if metric == "accuracy" else 1 / math.sqrt(rows))


def signals(collected: Collected) -> dict[str, Signal]:
    """The gate on every task of a study."""
    scores = collected.scores[collected.scores["split"] == "validation"].merge(
        collected.runs[["run", "task", "metric", "settings_hash", "rows"]].rename(columns={"metric": "chosen"}),
        on="run",
    )
    return {str(task): _signal(str(task), group) for task, group in scores.groupby("task", sort=True)}


def _signal(task: str, scores: pd.DataFrame) -> Signal:
    have = set(scores.loc[scores["who"] == "student", "metric"])
    metric = "accuracy" if "accuracy" in have else str(scores["chosen"].iloc[0])
    of = scores[scores["metric"] == metric]
    students, teachers, floors = (of[of["who"] == who] for who in ("student", "teacher", "majority"))
    majority = float(floors["value"].max()) * 100
    teacher = float(teachers["value"].max()) * 100
    best = float(students.groupby("settings_hash")["value"].mean().max()) * 100
    error = standard_error(metric, majority / 100, float(scores["rows"].max()))
    return Signal(task, metric, majority, teacher, best, error, judge(majority, teacher, best, error))


def note(gate: dict[str, Signal]) -> str:
    """The tasks that fall out, in one sentence; empty if there is none."""
    out = [f"{one.task} ({one.why})" for one in gate.values() if one.why]
    return f"Without signal, and so in no claim: {'; '.join(out)}." if out else ""
