"""Three questions about a difference, three intervals. Pure: arrays of differences (seeds, examples), one a task.

``d[s, i]``: what example i contributes to the difference between two runs with seed s, in points; its mean over
examples is the difference of their scores (``analysis.examples`` makes such arrays for any metric). Seeds and examples
are crossed: all seeds answer the same examples.

* **These examples, new seeds**: would other runs differ like this on this very set? (the tables' question)
* **These runs, new examples**: do these very models differ on other examples of the kind?
* **New seeds and new examples**: does the one method beat the other? (the papers' question)

Cells of (seed, example) are never independent: an interval that takes them so, or that looks at one of the two sources
where both are asked for, is too narrow. ``python -m analysis.simulate`` prints how often each holds the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from .estimate import Estimate, combine

Array = np.ndarray


@dataclass(frozen=True)
class Components:
    """Variances of one entry of ``d``: of its seed, of its example, and what is left (their interaction).

    In squared points; estimates below 0 are given as 0. ``seed`` is NaN with one seed, where it is part of ``rest``.
    """

    seed: float
    example: float
    rest: float
    seeds: int
    examples: int


def _matrix(differences: Array) -> Array:
    d = np.asarray(differences, dtype=float)
    if d.ndim != 2 or not d.shape[0] or d.shape[1] < 2:
        raise ValueError(f"differences have shape {d.shape}; expected (seeds, examples) with at least 2 examples")
    if not np.isfinite(d).all():
        raise ValueError("differences hold NaN or infinite values")
    return d


def _mean_squares(d: Array) -> tuple[float, float, float]:
    """Mean squares of seeds, examples and interaction of a balanced two-way layout; NaN where there is one seed."""
    seeds, examples = d.shape
    of_seed, of_example, mean = d.mean(axis=1), d.mean(axis=0), d.mean()
    ms_example = seeds * float(((of_example - mean) ** 2).sum()) / (examples - 1)
    if seeds < 2:
        return math.nan, ms_example, math.nan
    ms_seed = examples * float(((of_seed - mean) ** 2).sum()) / (seeds - 1)
    left = d - of_seed[:, None] - of_example[None, :] + mean
    return ms_seed, ms_example, float((left**2).sum()) / ((seeds - 1) * (examples - 1))


def components(differences: Array) -> Components:
    """Variance components by the analysis of variance of a crossed layout (Searle, Casella, McCulloch 1992, ch. 4)."""
    d = _matrix(differences)
    seeds, examples = d.shape
    ms_seed, ms_example, ms_rest = _mean_squares(d)
    if seeds < 2:
        return Components(math.nan, 0.0, ms_example, seeds, examples)
    seed, example = (ms_seed - ms_rest) / examples, (ms_example - ms_rest) / seeds
    return Components(max(seed, 0.0), max(example, 0.0), ms_rest, seeds, examples)


def new_seeds(tasks: Sequence[Array], level: float = 0.95) -> Estimate:
    """These examples, new seeds: Student's t over the seeds' mean differences, averaged over tasks.

    From these two methods alone; :func:`analysis.contrasts.contrast` answers the same with all cells of a study.
    """
    means = [_matrix(d).mean(axis=1) for d in tasks]
    variances = [float(one.var(ddof=1)) / one.size if one.size > 1 else math.nan for one in means]
    n = min(one.size for one in means)
    return combine([float(one.mean()) for one in means], variances, [one.size - 1 for one in means], n, level)


def new_examples(tasks: Sequence[Array], level: float = 0.95) -> Estimate:
    """These runs, new examples: Student's t over the examples' differences (means over seeds), averaged over tasks.

    Paired on examples. ``n``: the fewest examples of a task.
    """
    means = [_matrix(d).mean(axis=0) for d in tasks]
    return combine(
        [float(one.mean()) for one in means],
        [float(one.var(ddof=1)) / one.size for one in means],
        [one.size - 1 for one in means],
        min(one.size for one in means),
        level,
    )


def mcnemar(correct_a: Array, correct_b: Array) -> float:
    """Exact two-sided p value for two runs on the same examples (McNemar 1947): a fair coin on those they differ in.

    Args:
        correct_a: (examples,) booleans of one run.
        correct_b: of the other, same examples.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"runs have shapes {a.shape} and {b.shape}; McNemar's test needs two vectors of one length")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def new_seeds_and_examples(seeds: Estimate, tasks: Sequence[Array], level: float = 0.95) -> Estimate:
    """New seeds and new examples: the interval for new seeds, widened by what new examples add to it.

    The variance of a mean difference is ``(seed + rest / N) / S + example / N``. Its first part is what seeds show on
    these examples; the second is estimated by the crossed analysis of variance. Half-widths add in squares (Howe 1974,
    J. Am. Stat. Assoc. 69:789), which unlike Satterthwaite's approximation covers with 2 seeds. ``error`` is the
    standard error; there is no single df.

    Args:
        seeds: the answer to *these examples, new seeds*: of :func:`new_seeds`, or pooled over a study.
        tasks: the differences, at least 2 seeds each.
    """
    added = []
    for differences in tasks:
        d = _matrix(differences)
        _, ms_example, ms_rest = _mean_squares(d)
        added.append(max(ms_example - ms_rest, 0.0) / d.size)
    if math.isnan(seeds.error) or any(math.isnan(one) for one in added):
        return Estimate(seeds.value, math.nan, math.nan, math.nan, seeds.n)
    variance = sum(added) / len(added) ** 2
    degrees = [d.shape[1] - 1 for d in tasks]
    df = sum(added) ** 2 / sum(one**2 / k for one, k in zip(added, degrees, strict=True)) if variance else math.inf

    def half(upper: float) -> float:
        """Half-width of the interval that leaves ``upper`` on each side."""
        of_examples = special.stdtrit(df, 1 - upper) if math.isfinite(df) else 0.0
        return math.hypot(special.stdtrit(seeds.df, 1 - upper) * seeds.error, of_examples * math.sqrt(variance))

    here = half((1 - level) / 2)
    p = 1.0 if seeds.value == 0 else 2 * _tail(half, abs(seeds.value))
    error = math.hypot(seeds.error, math.sqrt(variance))
    return Estimate(seeds.value, seeds.value - here, seeds.value + here, p, seeds.n, error=error)


def _tail(half: Callable[[float], float], value: float) -> float:
    """The share on one side at which the interval around ``value`` just reaches 0."""
    smallest = 1e-15
    if half(smallest) < value:
        return smallest
    return float(optimize.brentq(lambda upper: half(upper) - value, smallest, 0.5, xtol=1e-16))
