"""Gram matrices: inner products between vectors instead of the vectors (after arXiv 2509.25253, abstract only)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdexp.objectives.base import Batch
from kdexp.objectives.common import choice, unit, wide
from kdexp.objectives.pooled import TokenRelation, frobenius

NORMALIZE = ("rows", "frobenius", "none")
REDUCTIONS = ("mean", "frobenius")


def gram_loss(
    student: Tensor,
    teacher: Tensor,
    attention_mask: Tensor | None = None,
    normalize: str = "rows",
    reduction: str = "mean",
) -> Tensor:
    """Difference of Gram matrices X X^T: one of rows (N, D), or one a sentence over its real tokens (B, L, D).

    Args:
        attention_mask: (B, L), 1 = real.
        normalize: ``rows`` = rows of length 1 first; ``frobenius`` = each matrix divided by its norm; ``none``.
        reduction: ``mean`` = sum of squared differences / number of all entries; ``frobenius`` = mean over matrices of
            the norm of the difference.
    """
    choice("normalize", normalize, NORMALIZE)
    choice("reduction", reduction, REDUCTIONS)
    x, y = (wide(side) if side.dim() == 3 else wide(side)[None] for side in (student, teacher.detach()))
    mask = x.new_ones(x.shape[:2]) if attention_mask is None or student.dim() == 2 else attention_mask.to(x.dtype)
    gap = _gram(x * mask[..., None], normalize) - _gram(y * mask[..., None], normalize)
    if reduction == "frobenius":
        return frobenius(gap).mean()
    return gap.square().sum() / mask.sum(-1).square().sum()


def _gram(x: Tensor, normalize: str) -> Tensor:
    """(B, L, L) inner products of rows (B, L, D)."""
    x = unit(x) if normalize == "rows" else x
    products = x @ x.transpose(-1, -2)
    if normalize != "frobenius":
        return products
    size = frobenius(products)[:, None, None]
    return products / torch.where(size > 0, size, 1.0)


class Gram(TokenRelation):
    """Difference of the sides' Gram matrices: angles (and lengths) between vectors; no projection.

    Reduction: mean over all entries, or over matrices. Mask: padded tokens are left out. Power of T: none. Units:
    token pairs within sentences (``tokens``, ``mean``), sentences (``tokens``, ``frobenius``); between pooled
    sentences it depends on the batch. Source: abstract only; normalisation, root and weight are ours. Degenerate: a
    zero vector has a zero row and column, without a gradient.

    Args:
        normalize, reduction: as in :func:`gram_loss`.
        rows, pool, layer_reduce: as in :class:`TokenRelation`.
    """

    def __init__(
        self,
        normalize: str = "rows",
        reduction: str = "mean",
        rows: str = "tokens",
        pool: str = "mean",
        layer_reduce: str = "sum",
    ) -> None:
        super().__init__(rows, pool, layer_reduce)
        choice("gram.normalize", normalize, NORMALIZE)
        choice("gram.reduction", reduction, REDUCTIONS)
        self.normalize, self.reduction = normalize, reduction
        self.batchwise = rows == "sentences"

    def units(self, batch: Batch) -> Tensor:
        """Pairs of real tokens within sentences; sentences with ``frobenius``, or where nothing is padded."""
        if self.reduction == "frobenius" or self.rows == "sentences" or batch.mask is None:
            return batch.index.new_tensor(len(batch))
        return batch.mask.sum(-1).square().sum()

    def relation(self, number: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`gram_loss`."""
        return gram_loss(student, teacher, self.mask(student, batch), self.normalize, self.reduction)
