"""What each example contributes to a score: arrays whose mean is the metric, so that runs can be compared by examples.

For accuracy an example contributes 100 or 0. Other metrics are no means over examples; there the contribution is the
jackknife's (Quenouille 1956; Efron, Stein 1981): the metric, plus (N - 1) times what it loses without the example.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def accuracy(counts: Array) -> Array:
    """Share of equal classes from confusion matrices (..., labels, predictions)."""
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum(axis=(-2, -1))


def _f1s(counts: Array) -> Array:
    """F1 of every class, 0 where a class is neither there nor predicted."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    both = counts.sum(axis=-1) + counts.sum(axis=-2)
    return np.divide(2.0 * hits, both, out=np.zeros_like(both, dtype=float), where=both > 0)


def f1(counts: Array) -> Array:
    """F1 of class 1 (two classes)."""
    return _f1s(counts)[..., 1]


def f1_macro(counts: Array) -> Array:
    """Mean over classes of their F1; classes that are neither there nor predicted are left out."""
    seen = (counts.sum(axis=-1) + counts.sum(axis=-2)) > 0
    return (_f1s(counts) * seen).sum(axis=-1) / seen.sum(axis=-1)


def mcc(counts: Array) -> Array:
    """Matthews' correlation coefficient of any number of classes; 0 for constant answers (Gorodkin 2004)."""
    total = counts.sum(axis=(-2, -1)).astype(float)
    true, said = counts.sum(axis=-1).astype(float), counts.sum(axis=-2).astype(float)
    above = np.trace(counts, axis1=-2, axis2=-1) * total - (true * said).sum(axis=-1)
    below = np.sqrt((total**2 - (said**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1)))
    return np.divide(above, below, out=np.zeros_like(total), where=below > 0)


def pearson(scores: Array, labels: Array) -> float:
    """Pearson's correlation; 0 when one side is constant."""
    x, y = scores - scores.mean(), labels - labels.mean()
    below = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / below) if below > 0 else 0.0


def spearman(scores: Array, labels: Array) -> float:
    """Spearman's rank correlation; 0 when one side is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(scores), rankdata(labels))


def pearson_spearman(scores: Array, labels: Array) -> float:
    """Mean of both correlations."""
    return (pearson(scores, labels) + spearman(scores, labels)) / 2


CLASSES: dict[str, Callable[[Array], Array]] = {"accuracy": accuracy, "f1": f1, "f1_macro": f1_macro, "mcc": mcc}
SCORES: dict[str, Callable[[Array, Array], float]] = {
    "pearson": pearson,
    "spearman": spearman,
    "pearson_spearman": pearson_spearman,
}


def contributions(metric: str, logits: Array, labels: Array) -> Array:
    """What each example contributes to ``metric`` x 100; the mean over examples is the metric.

    Args:
        metric: a name of :data:`CLASSES` or :data:`SCORES`.
        logits: (examples, classes), or (examples,) and (examples, 1) for a regression.
        labels: (examples,) class ids or scores.

    Raises:
        ValueError: unknown metric, or fewer than 2 examples.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if len(labels) < 2 or len(logits) != len(labels):
        raise ValueError(f"{len(logits)} predictions for {len(labels)} labels; both need the same number, at least 2")
    if metric in CLASSES:
        return 100 * _of_classes(CLASSES[metric], logits.argmax(axis=1), labels.astype(np.int64), logits.shape[1])
    if metric in SCORES:
        return 100 * _of_scores(SCORES[metric], logits.reshape(len(labels)), labels.astype(np.float64))
    raise ValueError(f"metric {metric!r} has no contributions by example; there are {', '.join([*CLASSES, *SCORES])}")


def _of_classes(metric: Callable[[Array], Array], predicted: Array, labels: Array, classes: int) -> Array:
    """All examples with one label and one answer contribute alike: one metric for each of the classes^2 kinds."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    without = np.broadcast_to(counts, (classes, classes, classes, classes)).copy()
    label, answer = np.indices((classes, classes))
    without[label, answer, label, answer] -= 1
    losses = np.where(counts > 0, metric(np.maximum(without, 0)), 0.0)[labels, predicted]
    return _centred(float(metric(counts)), losses)


def _of_scores(metric: Callable[[Array, Array], float], scores: Array, labels: Array) -> Array:
    kept = np.ones(len(labels), dtype=bool)
    losses = np.empty(len(labels))
    for index in range(len(labels)):
        kept[index] = False
        losses[index] = metric(scores[kept], labels[kept])
        kept[index] = True
    return _centred(metric(scores, labels), losses)


def _centred(whole: float, without: Array) -> Array:
    """Contributions from the metric and its values without each example, with the metric itself as their mean."""
    return whole + (len(without) - 1) * (without.mean() - without)
