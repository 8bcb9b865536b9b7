"""From estimates to a word: supported, refuted, negligible or undecided. Pure.

A claim says that an effect (points, positive where the claim points) lies above ``above``: 0, the gain that it names,
or minus the margin of "at least as good". It may have several parts that must all hold (A over B and B over C).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .estimate import Estimate
from .stats import holm

ALPHA = 0.05
SEEDS = 3  # no verdict below


@dataclass(frozen=True)
class Trial:
    """The estimates of a claim's parts, the ``above`` that all must exceed, and ``delta``, below which nothing matters.

    ``delta``: NaN where "too small to matter" is no answer, as for a claim with a margin.
    """

    parts: tuple[Estimate, ...]
    above: float = 0.0
    delta: float = math.nan

    @property
    def weakest(self) -> Estimate:
        """The part with the lowest lower end, which decides whether all hold."""
        return min(self.parts, key=lambda one: -math.inf if math.isnan(one.low) else one.low)

    @property
    def seeds(self) -> int:
        """The fewest seeds of a part."""
        return min(one.n for one in self.parts)

    def tails(self) -> tuple[float, float]:
        """One-sided p values: that all parts lie above ``above``; that at least one lies below (Bonferroni over parts).

        The first is the largest of the parts' (an intersection-union test, Berger 1982). NaN without spread.
        """
        tails = [one.tails(self.above) for one in self.parts]
        if any(math.isnan(p) for pair in tails for p in pair):
            return math.nan, math.nan
        return max(up for up, _ in tails), min(1.0, len(tails) * min(down for _, down in tails))

    @property
    def p(self) -> float:
        """Two-sided p value of the claim: twice the smaller tail; NaN without spread."""
        up, down = self.tails()
        return math.nan if math.isnan(up) else min(1.0, 2 * min(up, down))

    def inside(self, level: float) -> bool:
        """Whether the intervals of all parts at this level lie within +- delta: each effect is too small to matter."""
        bounds = [abs(end) for one in self.parts for end in one.interval(level)]
        return all(bound < self.delta for bound in bounds)


def word(trial: Trial, p: float, level: float) -> str:
    """The verdict, from a ``p`` corrected or not and the ``level`` of the interval that must lie within +- delta."""
    if trial.seeds < SEEDS or math.isnan(p):
        return "undecided"
    if p < ALPHA:
        up, down = trial.tails()
        return "supported" if up < down else "refuted"
    return "negligible" if trial.inside(level) else "undecided"


def corrected(trials: Sequence[Trial | None], family: int) -> list[float]:
    """Holm's p values of a study's primary claims; ``family``: how many it stated, tested or not (None: not tested).

    A claim that could not be tested, or not with enough seeds, takes its place in the family and gets no p value.
    """
    raw = [one.p if one is not None and one.seeds >= SEEDS else math.nan for one in trials]
    filled = [1.0 if math.isnan(p) else p for p in raw] + [1.0] * (family - len(raw))
    adjusted = holm(filled)[: len(raw)]
    return [math.nan if math.isnan(p) else float(new) for p, new in zip(raw, adjusted, strict=True)]


def family_level(family: int) -> float:
    """Level at which ``family`` intervals hold together with 95 % (Bonferroni)."""
    return 1 - ALPHA / max(1, family)


def judge(trials: Sequence[Trial | None], family: int) -> list[str]:
    """Verdicts of a study's primary claims: direction by Holm's p, negligible by :func:`family_level`'s interval."""
    ps = corrected(trials, family)
    return ["not run" if one is None else word(one, p, family_level(family)) for one, p in zip(trials, ps, strict=True)]
