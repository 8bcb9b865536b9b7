"""What a design can see: values that R prints, agreement with the test that is used in the end, and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from analysis.contrasts import Block, Pool, contrast
from analysis.power import Design, chance, detectable, minimum_effect, power, seeds_for


def test_few_degrees_of_freedom_by_numerical_integration() -> None:
    """Power given the sample's standard deviation is normal; integrated over it. df = 1 has the longest tails."""
    for df, shift in ((1, 20.0), (1, 40.0), (2, 6.0), (9, 2.5)):
        edge = sps.t.ppf(0.975, df)
        ratio = np.sqrt(sps.chi2.ppf((np.arange(200_000) + 0.5) / 200_000, df) / df)
        by_hand = np.mean(sps.norm.sf(edge * ratio - shift) + sps.norm.cdf(-edge * ratio - shift))
        assert chance(shift, df) == pytest.approx(by_hand, abs=1e-5)
    assert chance(1e6, 30) == 1.0


def test_the_detectable_effect_has_the_power_it_promises() -> None:
    for df, alpha in ((1, 0.05), (1, 0.0125), (4, 0.05), (60, 0.0125)):
        effect = detectable(2.0, df, alpha=alpha)
        assert chance(effect / 2.0, df, alpha) == pytest.approx(0.8, abs=1e-6)
    assert math.isnan(detectable(math.nan, 3)) and math.isnan(detectable(0.0, 3))


def test_a_design_has_the_error_of_the_contrast() -> None:
    """Scores whose residual is exactly std^2 have the design's standard error and degrees of freedom."""
    rng = np.random.default_rng(0)
    weights = np.array([1.0, -1.0, -1.0, 1.0, 0.0])
    blocks = []
    for std in (1.5, 0.9):
        scores = rng.normal(size=(5, 4))
        total, df = Pool(scores).residual
        blocks.append(Block(Pool(scores * std / math.sqrt(total / df)), weights))
    design = Design(4, (1.5, 0.9), 5, (1.0, -1.0, -1.0, 1.0))
    found = contrast(blocks)
    assert design.error() == pytest.approx((found.error, found.df))
    assert minimum_effect(design) == pytest.approx(detectable(found.error, found.df))


def test_two_cells_on_one_task_are_a_paired_t_test() -> None:
    design = Design(6, (1.0,), 2)
    effect = minimum_effect(design)
    assert power(6, effect, math.sqrt(2)) == pytest.approx(0.8)  # the differences' std is sqrt(2) times a run's


def test_more_of_anything_sees_less() -> None:
    design = Design(3, (1.0, 1.0), 4)
    seen = minimum_effect(design)
    for better in (
        Design(5, (1.0, 1.0), 4),
        Design(3, (1.0,) * 7, 4),
        Design(3, (1.0, 1.0), 8),
        Design(3, (0.5, 0.5), 4),
    ):
        assert minimum_effect(better) < seen
    assert minimum_effect(Design(3, (1.0, 1.0), 4, (1.0, -1.0, -1.0, 1.0))) == pytest.approx(seen * math.sqrt(2))
    assert minimum_effect(Design(3, (1.0, 1.0), 4, family=4)) > seen
    assert minimum_effect(Design(2, (1.0, 1.0), 4)) == math.inf  # no verdict below 3 seeds


def test_the_cheapest_number_of_seeds() -> None:
    design = Design(3, (1.0, 1.0), 6, family=3)
    needed = seeds_for(design, 1.0)
    assert needed is not None
    assert minimum_effect(Design(needed, (1.0, 1.0), 6, family=3)) <= 1.0
    assert minimum_effect(Design(needed - 1, (1.0, 1.0), 6, family=3)) > 1.0
    assert seeds_for(design, 0.01, most=100) is None and seeds_for(design, 50.0) == 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: minimum_effect(Design(3, (1.0,), 1)), "at least 2 cells"),
        (lambda: minimum_effect(Design(3, (), 3)), "positive std a task"),
        (lambda: minimum_effect(Design(3, (1.0, 0.0), 3)), "positive std a task"),
        (lambda: seeds_for(Design(3, (1.0,), 3), 0.0), "above 0"),
    ],
)
def test_an_impossible_design_is_said(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
