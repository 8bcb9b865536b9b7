"""Metrics by name. All are fractions (correlations in [-1, 1]) and defined for constant answers, where they are 0."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np

from kdexp.tasks import scorers

Metric = Callable[[np.ndarray, np.ndarray], float]


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of equal entries."""
    return float(np.mean(predicted == labels))


def f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """F1 of class 1 against the rest (two classes)."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, pos_label=1, average="binary", zero_division=0))


def f1_macro(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over classes of their F1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, average="macro", zero_division=0))


def mcc(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Matthews' correlation coefficient."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predicted))


def pearson(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation; 0 when one side is constant."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predicted, labels)


def spearman(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's rank correlation; 0 when one side is constant."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, predicted, labels)


def pearson_spearman(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean of both correlations, as GLUE's table shows for STS-B."""
    return (pearson(predicted, labels) + spearman(predicted, labels)) / 2


def _correlation(function: Callable, predicted: np.ndarray, labels: np.ndarray) -> float:
    predicted, labels = predicted.astype(np.float64), labels.astype(np.float64)
    if len(labels) < 2 or np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return 0.0
    value = float(function(predicted, labels).statistic)
    return 0.0 if math.isnan(value) else value


CLASSES: dict[str, Metric] = {"accuracy": accuracy, "f1": f1, "f1_macro": f1_macro, "mcc": mcc}
"""Metrics of predicted class ids."""

SCORES: dict[str, Metric] = {"pearson": pearson, "spearman": spearman, "pearson_spearman": pearson_spearman}
"""Metrics of predicted scores."""


def f1_micro(predicted: np.ndarray, labels: np.ndarray) -> float:
    """F1 of all decisions (n, C) together: which of the labels are there."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, average="micro", zero_division=0))


def subset_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples all of whose labels (n, C) are right."""
    return float(np.mean((predicted == labels).all(axis=1)))


SETS: dict[str, Metric] = {"f1_micro": f1_micro, "f1_macro": f1_macro, "subset_accuracy": subset_accuracy}
"""Metrics of which labels (n, C) are there."""


def known(kind: str) -> dict[str, Metric]:
    """Metrics of a ``classification``, a ``regression`` or a ``multilabel``."""
    return {"regression": SCORES, "multilabel": SETS}.get(kind, CLASSES)


def problem(name: str, kind: str, width: int) -> str:
    """Return why a name is no metric of a task, as the end of a sentence; '' = it is one, here or of scikit-learn's.

    Args:
        name: of the metric.
        kind: as :func:`known` has it.
        width: classes or labels; 1 for a regression.
    """
    if name in known(kind) or not (why := scorers.problem(name, kind, width)):
        return ""
    others = f"{', '.join(known(kind))}, or a scorer of scikit-learn that fits (sklearn.metrics.get_scorer_names())"
    return f"{why} for task.kind={kind}; choose among: {others}"


def compute(
    names: list[str], kind: str, predicted: np.ndarray, labels: np.ndarray, logits: np.ndarray | None = None
) -> dict[str, float]:
    """Evaluate metrics by name.

    Args:
        names: keys of :func:`known` for ``kind``, or names of scikit-learn's scorers.
        kind: ``classification``, ``regression`` or ``multilabel``.
        predicted: (n,) class ids or scores.
        labels: (n,) the truth.
        logits: (n, C) what the predictions were made of, for scorers; None = the predictions.

    Raises:
        ValueError: lengths differ, no example, or scores that are not finite.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    if predicted.shape != labels.shape or not len(labels):
        raise ValueError(f"{predicted.shape} predictions for {labels.shape} labels: one for each, at least one")
    if not np.all(np.isfinite(predicted)):
        raise ValueError("predictions are not finite: the training diverged (lower recipe.learning_rate)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = {name: known(kind)[name](predicted, labels) for name in names if name in known(kind)}
    asked = [name for name in names if name not in own]
    scored = scorers.compute(asked, kind, predicted if logits is None else logits, labels) if asked else {}
    return {name: own[name] if name in own else scored[name] for name in names}
