"""How sure a score is, and a difference of two scores on the same examples: intervals over new examples."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import stats

from kdexp.heads.batch import Predictions, Targets
from kdexp.tasks.base import Task

RESAMPLES = 999
LEVEL = 0.95


def interval(
    task: Task, predictions: Predictions, truths: Targets, other: Predictions | None = None
) -> tuple[float, float]:
    """Return the percentile bootstrap interval over examples of the task's metric, 95 %.

    Draws on which the metric is not defined are left out. Where every answer is right, or none, no draw differs from
    another, which tells nothing of new examples: then the exact binomial interval is returned (Clopper and Pearson,
    Biometrika 1934).

    Args:
        task: says how answers are scored.
        predictions: of all examples of a split.
        truths: their labels.
        other: of another form: the interval is of the difference, ``predictions`` minus these, example by example.
    """
    rows = _contributions(task, predictions, truths)
    if rows is not None:
        minus = _contributions(task, other, truths) if other is not None else None
        gaps = rows if minus is None else rows - minus

        def statistic(index: np.ndarray) -> float:
            return float(gaps[index].mean())
    else:

        def statistic(index: np.ndarray) -> float:
            few = _rows(truths, index)
            try:
                score = task.evaluate(_rows(predictions, index), few)[task.metric]
                return score - (task.evaluate(_rows(other, index), few)[task.metric] if other is not None else 0.0)
            except ValueError:  # not defined there, such as an area under a curve where all are of one class
                return float("nan")

    n = len(next(iter(truths.values())))
    if rows is not None and other is None and rows.min() == rows.max() and rows[0] in (0.0, 1.0):
        exact = stats.binomtest(int(rows.sum()), n).proportion_ci(LEVEL)
        return float(exact.low), float(exact.high)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an interval that is taken from what was drawn, below
        drawn = stats.bootstrap(
            (np.arange(n),), statistic, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile",
            vectorized=False, rng=np.random.default_rng(1),
        )  # fmt: skip
    scores = drawn.bootstrap_distribution
    low, high = np.quantile(scores[np.isfinite(scores)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _contributions(task: Task, predictions: Predictions, truths: Targets) -> np.ndarray | None:
    """Return (n,) what each example contributes to the metric, where it is a mean over examples."""
    if (
        task.metric == "accuracy"
        and task.head.label_names
        and "examples" in task.head.abilities
        and "classes" in task.head.abilities
    ):
        return (np.asarray(predictions["logits"]).argmax(1) == np.asarray(truths["label"])).astype(float)
    return task.contributions(predictions, truths).get(task.metric)


def _rows(values: Any, index: np.ndarray) -> dict[str, Any]:
    return {
        name: some[index] if isinstance(some, np.ndarray) else [some[row] for row in index]
        for name, some in values.items()
    }
