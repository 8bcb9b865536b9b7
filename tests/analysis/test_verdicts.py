"""Verdicts: each word by an interval that demands it, Holm over exactly the primary claims, nothing below 3 seeds."""

from __future__ import annotations

import math

import pytest
from scipy import stats as sps

from analysis.estimate import Estimate, combine
from analysis.stats import holm
from analysis.verdicts import Trial, corrected, family_level, judge, word


def estimate(value: float, error: float = 0.5, df: float = 20, n: int = 3) -> Estimate:
    return combine([value], [error**2], [df], n)


def verdict(*values: float, above: float = 0.0, delta: float = 1.0, **options: float) -> str:
    trial = Trial(tuple(estimate(value, **options) for value in values), above, delta)  # type: ignore[arg-type]
    return word(trial, trial.p, 0.95)


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (2, 0.5, "supported"),
        (-2, 0.5, "refuted"),
        (0.1, 0.3, "negligible"),
        (0.1, 0.6, "undecided"),
        (1, 2, "undecided"),
    ],
)
def test_the_four_words(value: float, error: float, said: str) -> None:
    assert verdict(value, error=error) == said


def test_the_interval_and_the_p_value_agree() -> None:
    edge = float(sps.t.ppf(0.975, 20)) * 0.5
    assert verdict(edge + 1e-6) == "supported" and verdict(edge - 1e-6) == "undecided"
    one = estimate(1.3)
    assert one.interval(0.95) == pytest.approx((one.low, one.high)) and 2 * one.tails()[0] == pytest.approx(one.p)
    inside = (1.0 - 0.2) / float(sps.t.ppf(0.975, 20))
    assert verdict(0.2, error=inside - 1e-6) == "negligible" and verdict(0.2, error=inside + 1e-6) == "undecided"


def test_a_threshold_moves_both_directions() -> None:
    """A gain of 1 by intervals (.2, .8) and (1.2, 2); "not worse by 1" by (-3, -1.5), (-.5, .5) and (-2, .5)."""
    assert verdict(0.5, error=0.1, above=1.0, delta=math.nan) == "refuted"
    assert verdict(1.6, error=0.1, above=1.0, delta=math.nan) == "supported"
    assert verdict(-2.2, error=0.3, above=-1.0, delta=math.nan) == "refuted"
    assert verdict(0.0, error=0.2, above=-1.0, delta=math.nan) == "supported"
    assert verdict(-0.7, error=0.5, above=-1.0, delta=math.nan) == "undecided"


def test_all_parts_must_hold() -> None:
    assert verdict(2, 3) == "supported" and verdict(2, 0.5) == "undecided"
    assert verdict(2, -2) == "refuted" and verdict(0.1, -0.1, error=0.3) == "negligible"
    assert verdict(0.1, 2, error=0.3) == "undecided"
    both = Trial((estimate(1.0), estimate(-1.2)))
    assert both.tails()[1] == pytest.approx(2 * estimate(-1.2).tails()[1])  # one of two parts is below: Bonferroni
    assert both.weakest.value == -1.2


def test_no_verdict_below_three_seeds_or_without_spread() -> None:
    assert verdict(9, n=2) == "undecided" and verdict(0, error=0.1, n=2) == "undecided"
    assert verdict(9, error=0.0) == "undecided"
    assert math.isnan(Trial((estimate(9, error=0.0),)).p)


def test_holm_runs_over_the_stated_family() -> None:
    trials = [Trial((estimate(value),)) for value in (1.3, 1.6)]
    two = corrected(trials, 2)
    assert two == pytest.approx(list(holm([one.p for one in trials])))
    # a third stated claim that could not be run counts: the same p as with one of p = 1
    three = corrected([*trials, None], 3)
    assert three[:2] == pytest.approx(list(holm([*(one.p for one in trials), 1.0]))[:2]) and math.isnan(three[2])
    assert corrected(trials, 3) == pytest.approx(three[:2])
    few = Trial((estimate(9, n=2),))
    assert math.isnan(corrected([few], 1)[0])


def test_primary_verdicts_use_the_family() -> None:
    marginal = Trial((estimate(1.2),), delta=1.0)
    assert marginal.p < 0.05 and judge([marginal], 1) == ["supported"]
    assert judge([marginal, None, None, None], 4) == ["undecided", "not run", "not run", "not run"]
    assert family_level(4) == pytest.approx(0.9875) and family_level(0) == 0.95
    small = Trial((estimate(0.0, error=0.4),), delta=1.0)
    assert judge([small], 1) == ["negligible"] and judge([small] * 4, 4) == ["undecided"] * 4
