"""Statistics against hand-computed values, scipy and values that R prints in its own documentation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from analysis import stats

# R: data(sleep), extra hours of sleep, group 1 and 2.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# R: example(wilcox.test), depression scale, Hollander and Wolfe 1973.
FIRST = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
SECOND = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
# R: example(friedman.test), RoundingTimes, Hollander and Wolfe 1973 (22 players, 3 methods).
ROUNDING = [
    (5.40, 5.50, 5.55),
    (5.85, 5.70, 5.75),
    (5.20, 5.60, 5.50),
    (5.55, 5.50, 5.40),
    (5.90, 5.85, 5.70),
    (5.45, 5.55, 5.60),
    (5.40, 5.40, 5.35),
    (5.45, 5.50, 5.35),
    (5.25, 5.15, 5.00),
    (5.85, 5.80, 5.70),
    (5.25, 5.20, 5.10),
    (5.65, 5.55, 5.45),
    (5.60, 5.35, 5.45),
    (5.05, 5.00, 4.95),
    (5.50, 5.50, 5.40),
    (5.45, 5.55, 5.50),
    (5.55, 5.55, 5.35),
    (5.45, 5.50, 5.55),
    (5.50, 5.45, 5.25),
    (5.65, 5.60, 5.40),
    (5.70, 5.65, 5.55),
    (6.30, 6.30, 6.25),
]


def test_paired_t_is_what_r_prints_for_sleep() -> None:
    """R: t.test(extra ~ group, sleep, paired = TRUE): t = -4.0621, df = 9, p-value = 0.002833, CI -2.4598858
    -0.7001142."""
    found = stats.paired_t(SLEEP_1, SLEEP_2)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    assert (found.value, found.df, found.n) == pytest.approx((-1.58, 9, 10))


def test_paired_t_over_tasks_uses_welch_satterthwaite_by_hand() -> None:
    """Two tasks: d1 = (1, 3), d2 = (0, 1, 2 is not possible: shapes are equal); here d2 = (4, 4.5)."""
    a, b = np.array([[1.0, 4.0], [3.0, 4.5]]), np.zeros((2, 2))
    found = stats.paired_t(a, b)
    parts = np.array([2.0 / 2 / 4, 0.125 / 2 / 4])  # var/n/T^2, by hand
    df = parts.sum() ** 2 / (parts**2).sum()  # n - 1 = 1 each
    assert found.value == pytest.approx((2.0 + 4.25) / 2)
    assert found.df == pytest.approx(df)
    assert found.p == pytest.approx(2 * sps.t.sf(3.125 / math.sqrt(parts.sum()), df))


def test_no_spread_is_undecided_and_one_run_has_no_interval() -> None:
    assert math.isnan(stats.paired_t([0.7, 0.7, 0.7], [0.6, 0.6, 0.6]).p)
    assert math.isnan(stats.mean_over_tasks([[0.3]]).low)


def test_interval_covers_with_three_runs_and_bootstrap_does_not() -> None:
    """The reason for the tables' choice: 95 % intervals over 3 runs on 3 tasks, 400 simulated studies."""
    rng = np.random.default_rng(0)
    spread = np.array([1.0, 2.0, 0.5])
    welch = boot = 0
    for _ in range(400):
        scores = rng.normal(0, spread, size=(3, 3))
        interval = stats.mean_over_tasks(list(scores.T))
        welch += interval.low <= 0 <= interval.high
        draws = scores[rng.integers(3, size=(200, 3, 3)), np.arange(3)].mean(axis=(1, 2))
        boot += np.quantile(draws, 0.025) <= 0 <= np.quantile(draws, 0.975)
    assert welch / 400 >= 0.93
    assert boot / 400 <= 0.90


def test_wilcoxon_is_what_r_prints() -> None:
    """R: wilcox.test(x, y, paired = TRUE, alternative = "greater"): V = 40, p-value = 0.01953 (two-sided 0.03906)."""
    assert stats.wilcoxon(FIRST, SECOND).p == pytest.approx(0.0390625)
    assert math.isnan(stats.wilcoxon([1.0, 2.0], [1.0, 2.0]).p)


def test_permutation_exact_by_hand() -> None:
    """Differences 1, 2, 3: of 8 sign patterns 2 are as extreme as all-positive: p = 0.25."""
    assert stats.permutation([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]).p == pytest.approx(0.25)
    many = np.random.default_rng(1).normal(0.5, 1, size=(8, 3))
    first = stats.permutation(many, np.zeros((8, 3)), seed=3, resamples=999)
    assert first.p == stats.permutation(many, np.zeros((8, 3)), seed=3, resamples=999).p


def test_corrections_are_those_of_r_p_adjust() -> None:
    """R: p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm") = 0.04 0.06 0.06 0.06; "BH" = 0.04 0.04 0.04 0.04."""
    p = [0.01, 0.02, 0.03, 0.04]
    assert stats.holm(p) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert stats.benjamini_hochberg(p) == pytest.approx([0.04] * 4)
    shuffled = stats.holm([0.04, math.nan, 0.01])
    assert shuffled[[0, 2]] == pytest.approx([0.04, 0.02]) and math.isnan(shuffled[1])


def test_iqm_and_probability_of_improvement_by_hand() -> None:
    assert stats.iqm([[1.0, 100.0], [2.0, 3.0]]) == pytest.approx(2.5)
    found = stats.probability_of_improvement([[3.0], [1.0]], [[2.0], [1.0]])
    assert found.value == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_friedman_is_what_r_prints_and_ranks_are_demsars() -> None:
    """R: friedman.test(RoundingTimes): chi-squared = 11.143, df = 2, p-value = 0.003805 (smaller times rank first)."""
    chi, p = stats.friedman(ROUNDING)
    assert (chi, p) == (pytest.approx(11.143, abs=5e-4), pytest.approx(0.003805, abs=5e-7))
    assert stats.mean_ranks([[3.0, 2.0, 2.0], [1.0, 5.0, 3.0]]) == pytest.approx([2.0, 1.75, 2.25])


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)])
def test_nemenyi_is_demsars_table_5a(k: int, q: float) -> None:
    """Demsar 2006, Table 5(a): q_0.05; with 4 classifiers on 14 sets CD = 1.25."""
    assert stats.critical_difference(k, 1) / math.sqrt(k * (k + 1) / 6) == pytest.approx(
        q, abs=1e-3
    )  # he prints 2.343, rounded down
    assert stats.critical_difference(4, 14) == pytest.approx(1.25, abs=5e-3)


def test_power_is_what_r_prints() -> None:
    """R: power.t.test(n = 20, delta = 1, sd = 1): power = 0.8689528; power.t.test(power = .90, delta = 1): n =
    22.02110."""
    assert stats.power(20, 1, 1, paired=False) == pytest.approx(0.8689528, abs=1e-6)
    assert stats.seeds_needed(1, 1, paired=False, target=0.9) == 23
    needed = stats.seeds_needed(0.5, 1.0)
    assert stats.power(needed, 0.5, 1.0) >= 0.8 > stats.power(needed - 1, 0.5, 1.0)


def test_bootstrap_is_seeded_stratified_and_agrees_with_theory() -> None:
    scores = np.random.default_rng(0).normal([0.0, 10.0], 1, size=(40, 2))
    one, two = (stats.bootstrap(scores, seed=5, resamples=999) for _ in range(2))
    assert one == two != stats.bootstrap(scores, seed=6, resamples=999)
    error = math.sqrt((scores.var(axis=0) / 40).sum()) / 2  # tasks fixed: the 10 points between them do not widen it
    assert one.high - one.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert stats.bootstrap(scores, "iqm", resamples=99).value == pytest.approx(stats.iqm(scores))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stats.paired_t([1, 2], [1, 2, 3]), "same seeds and tasks"),
        (lambda: stats.iqm([1.0, math.nan]), "NaN"),
        (lambda: stats.seeds_needed(1, 0), "positive std"),
        (lambda: stats.seeds_needed(0.001, 1, most=50), "more than 50"),
        (lambda: stats.friedman([[1, 2], [2, 1]]), "at least 3"),
        (lambda: stats.bootstrap([1, 2], "mode"), "unknown"),
        (lambda: stats.mean_over_tasks([]), "at least one task"),
        (lambda: stats.probability_of_improvement([[1, 2]], [[1]]), "same tasks"),
        (lambda: stats.critical_difference(1, 3), "at least 2"),
    ],
)
def test_wrong_input_says_what_to_do(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
