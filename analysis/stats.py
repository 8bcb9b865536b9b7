"""Pure statistics on scores: no files, no plotting, no pandas.

Shapes, everywhere in this module:

* ``scores`` of one method: array ``(runs, tasks)``; a row is a seed, a column a task.
* a *pair* of methods: two arrays of one shape, where row r of both used the same seed.
* ``blocks`` for rank methods: array ``(blocks, methods)``; a block is a task (or a task and a seed).

Scores must be finite and higher must be better. scipy does the work wherever it has the method; the
references name where a formula comes from. Nothing here corrects for having looked first: a test says what
it says about two things that were named before the data were seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from .estimate import Estimate, combine
from .power import power, seeds_needed

Array = np.ndarray
__all__ = [
    "Estimate",
    "benjamini_hochberg",
    "bootstrap",
    "critical_difference",
    "friedman",
    "holm",
    "iqm",
    "mean_over_tasks",
    "mean_ranks",
    "paired_t",
    "permutation",
    "power",
    "probability_of_improvement",
    "seeds_needed",
    "wilcoxon",
]


def _matrix(scores: object, name: str = "scores") -> Array:
    """``scores`` as a finite float array (runs, tasks); a vector counts as one task."""
    array = np.asarray(scores, dtype=float)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} has shape {array.shape}; expected (runs, tasks) with at least one of each")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values; drop the runs that have no score first")
    return array


def _pair(a: object, b: object) -> tuple[Array, Array]:
    """Two score matrices of one shape."""
    left, right = _matrix(a, "a"), _matrix(b, "b")
    if left.shape != right.shape:
        raise ValueError(f"a has shape {left.shape}, b {right.shape}; paired tests need the same seeds and tasks")
    return left, right


def mean_over_tasks(columns: Sequence[object], level: float = 0.95) -> Estimate:
    """Mean over tasks of the means over runs, tasks kept fixed, runs of different tasks independent.

    ``columns[t]`` holds the values of task t (lengths may differ). The variance is ``sum_t s_t^2/n_t / T^2`` with
    Satterthwaite's degrees of freedom (:func:`analysis.estimate.combine`), so that the interval covers even with 2 to 5
    runs a task, where a percentile bootstrap is too narrow. With one task it is Student's t. ``p`` tests value = 0
    (meant for differences).
    """
    arrays = [np.asarray(c, dtype=float) for c in columns]
    if not arrays or any(a.ndim != 1 or not a.size for a in arrays):
        raise ValueError("mean_over_tasks needs at least one task, and at least one value in every task")
    n = min(a.size for a in arrays)
    means = [float(a.mean()) for a in arrays]
    if n < 2:
        return combine(means, [math.nan] * len(arrays), [math.nan] * len(arrays), n, level)
    return combine(means, [float(a.var(ddof=1)) / a.size for a in arrays], [a.size - 1 for a in arrays], n, level)


def paired_t(a: object, b: object, level: float = 0.95) -> Estimate:
    """Paired t-test of a - b over seeds (Student 1908), averaged over tasks as in ``mean_over_tasks``.

    With one task this is ``scipy.stats.ttest_rel``. Differences without any spread give NaN, never p = 0.
    """
    left, right = _pair(a, b)
    return mean_over_tasks(list((left - right).T), level)


def bootstrap(
    scores: object,
    statistic: str | Callable[[Array], float] = "mean",
    *,
    seed: int = 0,
    resamples: int = 9999,
    level: float = 0.95,
) -> Estimate:
    """Percentile bootstrap interval, stratified: runs are drawn anew within each task, tasks are fixed.

    ``statistic``: ``mean``, ``median``, ``iqm`` or a function of a (runs, tasks) array. Same seed, same interval.
    Agarwal et al. 2021 (arXiv 2108.13264) section 4.1; ``scipy.stats.bootstrap`` with one sample a task.
    It is too narrow with few runs (n = 3: an 80 % interval in fact): prefer ``mean_over_tasks`` below 10 runs.
    """
    matrix = _matrix(scores)
    named: dict[str, Callable[[Array], float]] = {
        "mean": lambda m: float(m.mean()),
        "median": lambda m: float(np.median(m)),
        "iqm": iqm,
    }
    if isinstance(statistic, str) and statistic not in named:
        raise ValueError(f"statistic={statistic!r} is unknown; use one of {sorted(named)} or a function")
    function = named[statistic] if isinstance(statistic, str) else statistic
    value = function(matrix)
    if len(matrix) < 2:
        return Estimate(value, math.nan, math.nan, math.nan, len(matrix))
    columns = tuple(matrix.T)
    found = stats.bootstrap(
        columns,
        lambda *c: function(np.stack(c, axis=-1)),
        n_resamples=resamples,
        vectorized=False,
        paired=False,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(found.low), float(found.high), math.nan, len(matrix))


def permutation(a: object, b: object, *, seed: int = 0, resamples: int = 9999) -> Estimate:
    """Paired permutation test of the mean difference over seeds and tasks: every (seed, task) pair may swap sides.

    Exact when 2^(runs x tasks) <= ``resamples``, else seeded random swaps (Fisher 1935; scipy.stats.permutation_test
    with ``permutation_type='samples'``). The smallest p of an exact test is 2/2^pairs: with 4 pairs 0.125, so fewer
    than 6 pairs can never reach 0.05.
    """
    left, right = _pair(a, b)
    difference = (left - right).ravel()
    value = float(difference.mean())
    if difference.size < 2:
        return Estimate(value, math.nan, math.nan, math.nan, difference.size)
    found = stats.permutation_test(
        (left.ravel(), right.ravel()),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        alternative="two-sided",
        rng=np.random.default_rng(seed),
    )
    return Estimate(value, math.nan, math.nan, float(found.pvalue), difference.size)


def wilcoxon(a: object, b: object) -> Estimate:
    """Wilcoxon's signed-rank test over all (seed, task) pairs; the value is the median difference.

    Wilcoxon 1945; ``scipy.stats.wilcoxon`` (zero differences dropped, exact for small samples without ties).
    """
    left, right = _pair(a, b)
    difference = (left - right).ravel()
    value = float(np.median(difference))
    if difference.size < 2 or not np.any(difference):
        return Estimate(value, math.nan, math.nan, math.nan, difference.size)
    return Estimate(value, math.nan, math.nan, float(stats.wilcoxon(difference).pvalue), difference.size)


def holm(p_values: Sequence[float]) -> Array:
    """Holm's step-down adjusted p values (Holm 1979): family-wise error. NaN stays NaN and does not count."""
    return _adjusted(p_values, _holm)


def benjamini_hochberg(p_values: Sequence[float]) -> Array:
    """Benjamini and Hochberg's adjusted p values (1995): false discovery rate. NaN stays NaN and does not count."""
    return _adjusted(p_values, lambda p: stats.false_discovery_control(p, method="bh"))


def _adjusted(p_values: Sequence[float], rule: Callable[[Array], Array]) -> Array:
    """Apply a correction to the p values that exist."""
    p = np.asarray(p_values, dtype=float)
    out = np.full(p.shape, math.nan)
    known = ~np.isnan(p)
    if known.any():
        out[known] = rule(p[known])
    return out


def _holm(p: Array) -> Array:
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    out = np.empty_like(p)
    out[order] = np.minimum(stepped, 1.0)
    return out


def iqm(scores: object) -> float:
    """Interquartile mean over all runs and tasks: mean of the middle half (Agarwal et al. 2021)."""
    return float(stats.trim_mean(_matrix(scores).ravel(), 0.25))


def probability_of_improvement(a: object, b: object, *, seed: int = 0, resamples: int = 2000) -> Estimate:
    """P(a run of ``a`` beats a run of ``b``) on one task, ties half, averaged over tasks; bootstrap interval.

    Mann and Whitney's U/(n m) per task (Agarwal et al. 2021, section 4.3). Runs are not paired: counts may differ.
    """
    left, right = _matrix(a, "a"), _matrix(b, "b")
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"a has {left.shape[1]} tasks, b {right.shape[1]}; compare on the same tasks")

    def chance(x: Array, y: Array) -> float:
        gap = x[:, None, :] - y[None, :, :]
        return float(((gap > 0) + 0.5 * (gap == 0)).mean())

    value, n = chance(left, right), min(len(left), len(right))
    if n < 2:
        return Estimate(value, math.nan, math.nan, math.nan, n)
    rng, tasks = np.random.default_rng(seed), np.arange(left.shape[1])
    draws = [
        chance(
            left[rng.integers(len(left), size=left.shape), tasks],
            right[rng.integers(len(right), size=right.shape), tasks],
        )
        for _ in range(resamples)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, float(low), float(high), math.nan, n)


def mean_ranks(blocks: object) -> Array:
    """Mean rank of each method over blocks, 1 = best, ties share theirs. (blocks, methods) -> (methods,)."""
    return np.asarray(stats.rankdata(-_matrix(blocks, "blocks"), axis=1).mean(axis=0))


def friedman(blocks: object) -> tuple[float, float]:
    """Friedman's chi-square and its p value (``scipy.stats.friedmanchisquare``); needs 3 methods on 2 blocks."""
    matrix = _matrix(blocks, "blocks")
    if matrix.shape[1] < 3 or matrix.shape[0] < 2:
        raise ValueError(
            f"friedman got {matrix.shape[1]} methods on {matrix.shape[0]} blocks; it needs at least 3 on 2"
        )
    found = stats.friedmanchisquare(*matrix.T)
    return float(found.statistic), float(found.pvalue)


def critical_difference(methods: int, blocks: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks, q sqrt(k(k+1)/(6N)) (Demsar 2006, JMLR 7:1, section 3.2.2)."""
    if methods < 2 or blocks < 1:
        raise ValueError(f"critical_difference got {methods} methods and {blocks} blocks; it needs at least 2 and 1")
    q = float(stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * blocks))
