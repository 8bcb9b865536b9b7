"""What a design can see before it is run, and how many seeds a difference needs: power of t-tests. Pure.

All effects and standard deviations are in points. Power is the chance of p < alpha, two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from scipy import optimize, special, stats


def chance(shift: float, df: float, alpha: float = 0.05) -> float:
    """Power of a two-sided t-test whose statistic is noncentral t with ``shift`` = effect / standard error."""
    edge = float(special.stdtrit(df, 1 - alpha / 2))
    above, below = float(stats.nct.sf(edge, df, shift)), float(stats.nct.cdf(-edge, df, shift))
    # scipy's noncentral t returns NaN far out: the first is then nearly 1, the second nearly 0
    return (1.0 if math.isnan(above) else above) + (0.0 if math.isnan(below) else below)


def detectable(error: float, df: float, *, alpha: float = 0.05, target: float = 0.8) -> float:
    """The effect that a t-test with this standard error and df finds with chance ``target``; NaN without an error."""
    if not (error > 0 and df > 0):
        return math.nan
    edge = float(special.stdtrit(df, 1 - alpha / 2))
    return error * float(optimize.brentq(lambda shift: chance(shift, df, alpha) - target, 0.0, 10 * edge))


def power(n: int, difference: float, std: float, *, paired: bool = True, alpha: float = 0.05) -> float:
    """Power of a two-sided t-test with n runs a side. ``std``: of the differences if paired, else of one side's runs.

    Noncentral t (Cohen 1988); unpaired agrees with R's ``power.t.test(..., strict = TRUE)``.
    """
    df = n - 1 if paired else 2 * (n - 1)
    if df < 1:
        return 0.0
    return chance(abs(difference) / std * math.sqrt(n if paired else n / 2), df, alpha)


def seeds_needed(
    difference: float, std: float, *, paired: bool = True, alpha: float = 0.05, target: float = 0.8, most: int = 10_000
) -> int:
    """Smallest number of seeds with which a t-test finds ``difference`` with chance ``target`` (see ``power``)."""
    if std <= 0 or difference == 0:
        raise ValueError(
            f"seeds_needed got difference={difference}, std={std}; it needs a difference and a positive std"
        )
    needed = _first(lambda n: power(n, difference, std, paired=paired, alpha=alpha) >= target, 2, most)
    if needed is None:
        raise ValueError(f"a difference of {difference} with std {std} needs more than {most} seeds; raise `most`")
    return needed


@dataclass(frozen=True)
class Design:
    """A claim before its study is run: what decides how small an effect it can see.

    Attributes:
        seeds: of every cell.
        std: a task each, the standard deviation of a run around its cell and its seed, in points.
        cells: of the study on each task; all of them tell how much a run varies.
        weights: of the claim's cells: (1, -1) compares two, (1, -1, -1, 1) two differences.
        family: primary claims of the study; each has to reach 0.05 / family in the worst case of Holm's correction.
    """

    seeds: int
    std: tuple[float, ...]
    cells: int
    weights: tuple[float, ...] = (1.0, -1.0)
    family: int = 1

    def error(self) -> tuple[float, float]:
        """Standard error of the effect and its degrees of freedom, as in :func:`analysis.contrasts.contrast`."""
        if self.cells < 2 or not self.std or min(self.std) <= 0:
            raise ValueError(
                f"a design needs at least 2 cells and a positive std a task; it has {self.cells} and {self.std}"
            )
        factor = sum(w**2 for w in self.weights) / self.seeds / len(self.std) ** 2
        parts = [std**2 * factor for std in self.std]
        each = (self.cells - 1) * (self.seeds - 1)
        df = sum(parts) ** 2 / sum(part**2 for part in parts) * each
        return math.sqrt(sum(parts)), df


def minimum_effect(design: Design, target: float = 0.8) -> float:
    """The smallest effect, in points, that the design finds with chance ``target``; infinite below 3 seeds.

    Slightly too small where the study's cells do not vary alike, which costs a contrast its pooled error.
    """
    if design.seeds < 3:  # no verdict there: analysis.verdicts.SEEDS
        return math.inf
    error, df = design.error()
    return detectable(error, df, alpha=0.05 / design.family, target=target)


def seeds_for(design: Design, effect: float, target: float = 0.8, most: int = 1000) -> int | None:
    """The fewest seeds with which the design, else as it is, finds ``effect`` with chance ``target``.

    None: not with ``most``.

    Raises:
        ValueError: the effect is not above 0.
    """
    if effect <= 0:
        raise ValueError(f"seeds_for got an effect of {effect} points; it needs one above 0")
    return _first(lambda n: minimum_effect(replace(design, seeds=n), target) <= effect, 3, most)


def _first(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number in [low, high] for which ``holds``, given that it then holds for all larger ones."""
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
