"""Contrasts: the paired t-test where nothing can be pooled, a two-way analysis by hand where it can, and tie groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from analysis import stats
from analysis.contrasts import Block, Pool, alike, contrast, letters, pair, tie_groups

RNG = np.random.default_rng(0)


def test_two_cells_alone_are_a_paired_t_test() -> None:
    scores = RNG.normal(size=(2, 5))
    found, known = pair([Pool(scores)], 0, 1), stats.paired_t(scores[0], scores[1])
    assert found is not None
    assert (found.value, found.low, found.high, found.p, found.df) == pytest.approx(
        (known.value, known.low, known.high, known.p, 4)
    )


def test_the_pool_is_the_residual_of_a_two_way_analysis() -> None:
    """Cells x seeds by least squares on dummies, with and without a missing run."""
    scores = RNG.normal(size=(5, 4)) + np.arange(4)  # seeds differ by a point: that is no noise
    for missing in (False, True):
        table = scores.copy()
        table[3, 2] = math.nan if missing else table[3, 2]
        cell, seed = np.nonzero(np.isfinite(table))
        design = np.hstack([np.eye(5)[cell], np.eye(4)[seed][:, 1:]])
        values = table[cell, seed]
        left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
        assert Pool(table).residual == pytest.approx(((left**2).sum(), 12 - missing))
    total, df = Pool(scores).residual
    found = pair([Pool(scores)], 1, 2)
    assert found is not None
    error = math.sqrt(total / df * 2 / 4)
    half = sps.t.ppf(0.975, 12) * error
    assert (found.low, found.high, found.df) == pytest.approx((found.value - half, found.value + half, 12))


def test_a_gap_over_two_tasks_by_hand() -> None:
    one, two = RNG.normal(size=(2, 6, 3))
    weights = np.array([1.0, -1.0, -1.0, 1.0, 0.0, 0.0])
    found = contrast([Block(Pool(one), weights), Block(Pool(two), weights)])
    parts = [total / df * 4 / 3 / 4 for total, df in (Pool(one).residual, Pool(two).residual)]
    df = sum(parts) ** 2 / sum(part**2 / 10 for part in parts)
    assert found.value == pytest.approx(np.mean([weights @ one.mean(1), weights @ two.mean(1)]))
    assert (found.error, found.df) == pytest.approx((math.sqrt(sum(parts)), df))


def test_cells_that_say_nothing_about_noise_are_left_out() -> None:
    """Constant answers would make the error smaller, a diverging arm larger, than it is for the others."""
    quiet = RNG.normal(size=(6, 4))
    constant, wild = np.full((2, 4), 52.7), 50 * RNG.normal(size=(1, 4))
    assert list(alike(np.vstack([quiet, constant, wild]))) == [True] * 6 + [False] * 3
    assert Pool(np.vstack([quiet, constant, wild])).residual == pytest.approx(Pool(quiet).residual)
    assert not alike(constant).any() and Pool(constant).residual == (0.0, 0.0)


def test_an_arm_that_varies_more_than_the_others_answers_for_itself() -> None:
    scores = RNG.normal(size=(8, 5))
    scores[0] = 10 * (scores[0] - scores[0].mean())
    found = pair([Pool(scores)], 0, 1)
    own = stats.paired_t(scores[0], scores[1])
    assert found is not None and (found.low, found.high, found.df) == pytest.approx((own.low, own.high, 4))
    other = pair([Pool(scores)], 1, 2)
    assert other is not None and other.error < 1.0 and other.df == 24  # and does not spoil the error of the others


def test_no_spread_and_one_seed_give_no_test() -> None:
    flat = pair([Pool(np.array([[1.0, 1.0], [2.0, 2.0]]))], 0, 1)
    single = pair([Pool(np.array([[1.0], [2.0], [4.0]]))], 0, 1)
    assert flat is not None and single is not None
    assert math.isnan(flat.p) and math.isnan(single.p) and single.value == -1
    assert pair([Pool(np.array([[1.0, math.nan], [math.nan, 2.0]]))], 0, 1) is None
    with pytest.raises(ValueError, match="share no seed"):
        contrast([Block(Pool(np.array([[1.0, math.nan], [math.nan, 2.0]])), np.array([1.0, -1.0]))])


def test_tie_groups_are_what_holm_over_all_pairs_separates() -> None:
    levels = np.array([10.0, 0.0, 10.2, 5.0])
    scores = levels[:, None] + 0.5 * RNG.normal(size=(4, 4))
    assert tie_groups([Pool(scores)]) == ["a", "c", "a", "b"]
    assert tie_groups([Pool(RNG.normal(size=(4, 3)))]) == ["a"] * 4
    assert tie_groups([Pool(np.ones((3, 1)))]) == ["", "", ""]
    # 5 rows a third apart: neighbours hang together, ends do not; p by hand, Holm over 10 pairs
    chain = np.arange(5)[::-1, None] * 1.0 + 0.35 * RNG.normal(size=(5, 4))
    words = tie_groups([Pool(chain)])
    found = {(a, b): pair([Pool(chain)], a, b) for a in range(5) for b in range(a + 1, 5)}
    adjusted = dict(zip(found, stats.holm([one.p for one in found.values() if one]), strict=True))
    for (a, b), p in adjusted.items():
        assert bool(set(words[a]) & set(words[b])) == (p >= 0.05), (a, b, p)
    assert len(set(words)) > 2


def test_letters_by_hand() -> None:
    assert letters({(0, 2)}, [0, 1, 2]) == ["a", "ab", "b"]
    assert letters(set(), [0, 1, 2]) == ["a", "a", "a"]
    assert letters({(0, 1), (0, 2), (1, 2)}, [0, 1, 2]) == ["a", "b", "c"]
    assert letters({(0, 1)}, [0, 1, 2]) == ["a", "b", "ab"]  # the last row varies too much to be told from either
    assert letters({(0, 1), (0, 2)}, [2, 1, 0]) == ["a", "a", "b"]
    noisy = {(a, b) for a in range(9) for b in range(a + 2, 9)}  # neighbours hang together, and row 9 with all
    words = letters(noisy, [0, 1, 2, 3, 9, 4, 5, 6, 7, 8])
    assert words[4] == "abcdefgh" and words[0] == "a" and words[1] == "ab" and words[-1] == "h"


def test_letters_say_exactly_which_rows_are_apart() -> None:
    for share in (0.1, 0.5, 0.9):  # any pairs, however odd
        pairs = [(a, b) for a in range(8) for b in range(a + 1, 8)]
        apart = {both for both in pairs if RNG.random() < share}
        order = [int(row) for row in RNG.permutation(8)]
        words = dict(zip(order, letters(apart, order), strict=True))
        for a, b in pairs:
            assert bool(set(words[a]) & set(words[b])) == ((a, b) not in apart), (a, b, words)


def test_after_z_groups_have_numbers() -> None:
    many = letters({(a, b) for a in range(30) for b in range(a + 1, 30)}, range(30))
    assert many[0] == "a" and many[25] == "z" and many[26] == "(27)"
