"""Contrasts between cells of a study, with one error term for all of its cells, and tie groups. Pure: arrays in, out.

A *cell* is one setting on one task, run with several seeds. ``scores`` are arrays (cells, seeds) of one task, NaN where
there is no run. Every cell says something about how much a run varies, also those that a comparison leaves alone: with
2 cells of 3 seeds a paired t-test has 2 degrees of freedom, with the residual of 8 cells 14.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations, count

import numpy as np
from scipy import special

from .estimate import SMALLEST, Estimate, combine
from .stats import holm

Array = np.ndarray
ALPHA = 0.05
SUSPICION = 0.1  # level of the test that takes a contrast out of the pool
OUTLIER = 0.01  # level of the test that takes a cell out of it


def alike(scores: Array) -> Array:
    """Which cells of (cells, seeds) may share an error term, as a mask.

    Left out are cells without any spread (a student that always gives the same answer says nothing about the noise of
    others) and, one after the other, the cell that varies most if an F-test against the rest calls it an outlier at the
    1 % level, Bonferroni over cells (with equal seeds this is Cochran's C test, 1941).
    """
    have = np.isfinite(scores)
    counts = have.sum(axis=1)
    means = np.where(have, scores, 0.0).sum(axis=1) / np.maximum(counts, 1)
    squares = (np.where(have, scores - means[:, None], 0.0) ** 2).sum(axis=1)
    kept = squares > SMALLEST
    dfs = np.maximum(counts - 1, 1)
    while kept.sum() > 2:
        ratios = np.where(kept, squares / dfs, 0.0)
        worst = int(ratios.argmax())
        rest, rest_df = squares[kept].sum() - squares[worst], dfs[kept].sum() - dfs[worst]
        p = kept.sum() * special.fdtrc(dfs[worst], rest_df, ratios[worst] / (rest / rest_df))
        if p >= OUTLIER:
            break
        kept[worst] = False
    return kept


class Pool:
    """One task of a study: its scores and how much a run varies around additive effects of cell and seed.

    Attributes:
        scores: (cells, seeds), NaN where there is no run.
        kept: mask of the cells that are :func:`alike`.
        residual: sum of squares and degrees of freedom that the kept cells leave.
    """

    def __init__(self, scores: Array):
        self.scores = np.asarray(scores, dtype=float)
        self.kept = alike(self.scores)
        self._whole = bool(np.isfinite(self.scores[self.kept]).all())
        means = np.where(self.kept, np.nan_to_num(self.scores).mean(axis=1), 0.0)
        self._centred = np.where(self.kept[:, None], self.scores - means[:, None], 0.0)  # used if whole
        self.residual = self.residual_of(self.kept)

    def residual_of(self, rows: Array) -> tuple[float, float]:
        """Sum of squares and degrees of freedom that the cells in a mask leave.

        With two cells, twice the first over the second is the variance of a paired t-test.
        """
        count = int(np.count_nonzero(rows))
        if count < 2:
            return 0.0, 0.0
        if self._whole:
            centred = self._centred[rows]
            total = np.einsum("cs,cs->", centred, centred) - (centred.sum(axis=0) ** 2).sum() / count
            return float(total), float((count - 1) * (centred.shape[1] - 1))
        scores = self.scores[rows]
        cell, seed = np.nonzero(np.isfinite(scores))
        design = np.hstack([np.eye(scores.shape[0])[cell], np.eye(scores.shape[1])[seed]])
        values = scores[cell, seed]
        fitted, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
        return float(((values - design @ fitted) ** 2).sum()), float(len(values) - rank)


@dataclass(frozen=True)
class Block:
    """One task of a contrast: the study's cells and each one's weight (they sum to 0)."""

    pool: Pool
    weights: Array


@dataclass(frozen=True)
class _Error:
    """A block's effect, its variance from its own differences, from the pool, and from the pool without its cells."""

    value: float
    seeds: int
    paired: float
    pooled: float
    pooled_df: float
    rest: float
    rest_df: float


def _error(block: Block) -> _Error:
    used, scores = block.weights != 0, block.pool.scores
    shared = np.isfinite(scores[used]).all(axis=0)
    seeds = int(shared.sum())
    if not seeds:
        raise ValueError("the cells of a contrast share no seed; compare cells that were run with the same seeds")
    differences = block.weights[used] @ scores[used][:, shared]
    value = float(differences.sum()) / seeds
    factor = float((block.weights**2).sum()) / seeds
    paired = float(((differences - value) ** 2).sum()) / (seeds - 1) / seeds if seeds > 1 else math.nan
    (total, df), (rest, rest_df) = block.pool.residual, block.pool.residual_of(block.pool.kept & ~used)
    pooled = total / df * factor if df else paired
    return _Error(value, seeds, paired, pooled, df or seeds - 1, rest / rest_df * factor if rest_df else 0.0, rest_df)


def contrast(blocks: Sequence[Block], level: float = 0.95) -> Estimate:
    """A weighted sum of cell means, averaged over tasks; paired by seed, its error pooled over all cells of each task.

    The variance of a task is ``s^2 sum(w^2) / n`` with ``s^2`` from :class:`Pool`: that of a two-way analysis (cell and
    seed). It assumes that the cells vary alike. Where the differences of this contrast vary more than the study's
    other cells (an F-test over all its tasks, at the 10 % level), their own variance is used instead, as in a paired
    t-test. ``n``: the fewest seeds on a task. Tasks are combined as in :func:`analysis.estimate.combine`.
    """
    parts = [_error(block) for block in blocks]
    n = min(part.seeds for part in parts)
    tested = [part for part in parts if part.rest > 0 and part.seeds > 1]
    noisier = False
    if tested:
        df, rest_df = sum(part.seeds - 1 for part in tested), sum(part.rest_df for part in tested)
        ratio = sum((part.seeds - 1) * part.paired / part.rest for part in tested) / df
        noisier = ratio > float(special.fdtri(df, rest_df, 1 - SUSPICION))
    return combine(
        [part.value for part in parts],
        [part.paired if noisier else part.pooled for part in parts],
        [part.seeds - 1 if noisier else part.pooled_df for part in parts],
        n,
        level,
    )


def pair(pools: Sequence[Pool], a: int, b: int) -> Estimate | None:
    """Cell ``a`` minus cell ``b``, averaged over tasks; None if they share no seed on some task."""
    if not all(np.isfinite(pool.scores[[a, b]]).all(axis=0).any() for pool in pools):
        return None
    weights = np.zeros(len(pools[0].scores))
    weights[a], weights[b] = 1.0, -1.0
    return contrast([Block(pool, weights) for pool in pools])


def tie_groups(pools: Sequence[Pool], alpha: float = ALPHA) -> list[str]:
    """Letters a cell: two cells that share a letter cannot be told apart, Holm's correction over all pairs.

    Means and pairs are averaged over tasks (``pools``: cells in one order). ``a`` is the group of the highest mean.
    Empty words where no pair could be tested.
    """
    cells = len(pools[0].scores) if pools else 0
    tested = {(a, b): pair(pools, a, b) for a, b in combinations(range(cells), 2)}
    p_values = {both: one.p for both, one in tested.items() if one is not None and math.isfinite(one.p)}
    if not p_values:
        return [""] * cells
    means = np.mean([np.nanmean(pool.scores, axis=1) for pool in pools], axis=0)
    order = [int(index) for index in np.argsort(-means, kind="stable")]
    adjusted = holm(list(p_values.values()))
    words = letters({both for both, p in zip(p_values, adjusted, strict=True) if p < alpha}, order)
    return [words[order.index(cell)] for cell in range(cells)]


def letters(apart: set[tuple[int, int]], order: Sequence[int]) -> list[str]:
    """Letters for rows in ``order`` (best first): two rows share one exactly if they are not in ``apart``.

    A compact letter display (Piepho 2004): each letter is a group of rows of which no two are apart, as large as it can
    be. Where rows vary alike, groups are stretches of the order; a row that varies more than the others hangs together
    with many of them, and has a letter of each. 27 groups on: ``(27)``.
    """
    places = range(len(order))

    def tied(i: int, j: int) -> bool:
        a, b = order[i], order[j]
        return (min(a, b), max(a, b)) not in apart

    groups: list[set[int]] = []
    for i in places:
        for j in reversed(places[i:]):
            if tied(i, j) and not any({i, j} <= group for group in groups):
                group = {i, j}
                for k in places:  # the largest that holds both, best rows first
                    if all(tied(k, other) for other in group):
                        group.add(k)
                groups.append(group)
    names = chain(string.ascii_lowercase, (f"({number})" for number in count(27)))
    used = list(zip(names, sorted(groups, key=sorted), strict=False))
    return ["".join(name for name, group in used if place in group) for place in places]
