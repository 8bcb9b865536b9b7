"""Scores that are no means over examples: of counts, and what each example contributes to one."""

from __future__ import annotations

import numpy as np


def precision_recall_f1(totals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1 of counts (..., 3); 0 where nothing is given or there."""
    hits, given, there = (totals[..., i].astype(np.float64) for i in range(3))
    return _share(hits, given), _share(hits, there), _share(2 * hits, given + there)


def _share(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def jackknife(whole: float, without: np.ndarray) -> np.ndarray:
    """Return what each example contributes to a metric that is no mean, from its values without each; their mean is it.

    Args:
        whole: the metric.
        without: (n,) the metric without each example.
    """
    shares: np.ndarray = whole + (len(without) - 1) * (without.mean() - without)
    return shares
