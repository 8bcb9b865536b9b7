"""How many seeds a difference needs: power of t-tests. ``analysis.stats`` offers both functions as its own."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats


def power(n: int, difference: float, std: float, *, paired: bool = True, alpha: float = 0.05) -> float:
    """Power of a two-sided t-test with n runs a side. ``std``: of the differences if paired, else of one side's runs.

    Noncentral t (Cohen 1988); unpaired agrees with R's ``power.t.test(..., strict = TRUE)``.
    """
    df = n - 1 if paired else 2 * (n - 1)
    if df < 1:
        return 0.0
    shift = abs(difference) / std * math.sqrt(n if paired else n / 2)
    edge = float(stats.t.ppf(1 - alpha / 2, df))
    if shift > edge + 10:  # far out, where scipy's noncentral t returns NaN
        return 1.0
    return float(stats.nct.sf(edge, df, shift) + np.nan_to_num(stats.nct.cdf(-edge, df, shift)))  # 2nd: NaN when ~ 0


def seeds_needed(
    difference: float, std: float, *, paired: bool = True, alpha: float = 0.05, target: float = 0.8, most: int = 10_000
) -> int:
    """Smallest number of seeds with which a t-test finds ``difference`` with chance ``target`` (see ``power``)."""
    if std <= 0 or difference == 0:
        raise ValueError(
            f"seeds_needed got difference={difference}, std={std}; it needs a difference and a positive std"
        )
    low, high = 2, most
    if power(most, difference, std, paired=paired, alpha=alpha) < target:
        raise ValueError(f"a difference of {difference} with std {std} needs more than {most} seeds; raise `most`")
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle)
            if power(middle, difference, std, paired=paired, alpha=alpha) >= target
            else (middle + 1, high)
        )
    return low
