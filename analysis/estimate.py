"""An effect with its standard error: what every test of this folder returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

SMALLEST = 1e-18  # a variance below is rounding: with it a t statistic would be 0/0 or infinite


@dataclass(frozen=True)
class Estimate:
    """An effect with its interval and test: ``value`` in [``low``, ``high``], two-sided ``p`` on ``n`` pairs or runs.

    ``p`` and the interval are NaN where the data cannot give them (one run, or no spread at all). ``error`` is the
    standard error and ``df`` its degrees of freedom, NaN where the interval is not Student's.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    df: float = math.nan
    error: float = math.nan

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's interval at another level; NaN where there is none."""
        half = float(special.stdtrit(self.df, 0.5 + level / 2)) * self.error
        return self.value - half, self.value + half

    def tails(self, at: float = 0.0) -> tuple[float, float]:
        """One-sided p values against an effect of ``at``: that it is larger, that it is smaller. NaN without spread."""
        t = (self.value - at) / self.error
        return float(special.stdtr(self.df, -t)), float(special.stdtr(self.df, t))


def combine(
    values: Sequence[float], variances: Sequence[float], dfs: Sequence[float], n: int, level: float = 0.95
) -> Estimate:
    """Mean of independent effects, one a task (tasks fixed), each with the variance of its own mean.

    The variance is ``sum(variances) / T^2``; its degrees of freedom are Welch's and Satterthwaite's (Satterthwaite
    1946, Biometrics Bulletin 2:110), so that intervals cover with few runs a task. ``p`` tests an effect of 0.
    """
    count = len(values)
    value = float(np.mean(values))
    parts = np.asarray(variances, dtype=float) / count**2
    variance = float(parts.sum())
    if n < 2 or not variance > SMALLEST:
        return Estimate(value, math.nan, math.nan, math.nan, n)
    df = variance**2 / float(np.sum(parts**2 / np.asarray(dfs, dtype=float)))
    error = math.sqrt(variance)
    half = float(special.stdtrit(df, 0.5 + level / 2)) * error
    return Estimate(value, value - half, value + half, float(2 * special.stdtr(df, -abs(value) / error)), n, df, error)
