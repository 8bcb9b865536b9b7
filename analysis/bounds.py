"""Where a metric's scale ends, in points: an interval does not go beyond what a score can be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace

from .estimate import Estimate

SHARES = {
    *("accuracy", "balanced_accuracy", "subset_accuracy", "exact_match", "agreement", "precision", "recall"),
    *("f1", "jaccard", "roc_auc", "average_precision", "top_k_accuracy"),
    *("has_answer_exact_match", "has_answer_f1", "no_answer_f1"),
}
"""Metrics between 0 and 1, whatever their average (``f1_macro``, ``roc_auc_ovr_weighted``)."""
AVERAGE = re.compile(r"(_(macro|micro|weighted|samples|ovr|ovo))+$")
CORRELATIONS = {"mcc", "matthews_corrcoef", "pearson", "spearman", "pearson_spearman", "cosine"}
"""Metrics between -1 and 1."""


def bounds(metric: str) -> tuple[float, float]:
    """Return the ends of a metric's scale x 100; infinite where they are not known."""
    if AVERAGE.sub("", metric) in SHARES:
        return 0.0, 100.0
    return (-100.0, 100.0) if metric in CORRELATIONS else (-math.inf, math.inf)


def within(estimate: Estimate, metrics: Iterable[str]) -> Estimate:
    """Return a mean of scores of some metrics with its interval cut where the mean of their scales ends."""
    ends = [bounds(metric) for metric in metrics]
    low, high = (sum(end[side] for end in ends) / len(ends) for side in (0, 1))
    return replace(estimate, low=max(estimate.low, low), high=min(estimate.high, high))  # NaN, as it is first, stays
