"""CKA as a loss: centred kernel alignment of representations (Kornblith et al., ICML 2019, arXiv 1905.00414)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdexp.objectives.base import Batch
from kdexp.objectives.common import wide
from kdexp.objectives.pooled import TokenRelation, centred, masked_rows


def cka_loss(student: Tensor, teacher: Tensor, attention_mask: Tensor | None = None, unbiased: bool = False) -> Tensor:
    """1 - linear CKA of rows (N, D), or of all real tokens of (B, L, D); widths may differ.

    Args:
        attention_mask: (B, L), 1 = real.
        unbiased: HSIC_1, of at least 4 rows (fewer: 1), may leave [0, 1]; else columns are centred.
    """
    ours, real = masked_rows(wide(student), attention_mask)
    theirs, _ = masked_rows(wide(teacher.detach()), attention_mask)
    if unbiased:
        n = real.sum()
        k, l = (_without_diagonal(x @ x.T) for x in (ours, theirs))
        cross, one, other = _hsic(k, l, n), _hsic(k, k, n), _hsic(l, l, n)
        enough = n >= 4
    else:
        x, y = centred(ours, real), centred(theirs, real)
        cross, one, other = ((a.T @ b).square().sum() for a, b in ((y, x), (x, x), (y, y)))
        enough = real.sum() > 0
    product = one * other
    fit = enough & (product > 1e-24)
    return torch.where(fit, 1 - cross / torch.where(fit, product, 1.0).sqrt(), 1.0)


def _without_diagonal(k: Tensor) -> Tensor:
    return k.masked_fill(torch.eye(len(k), dtype=torch.bool, device=k.device), 0.0)


def _hsic(k: Tensor, l: Tensor, n: Tensor) -> Tensor:
    """The unbiased estimate of two kernels (N, N) with zero diagonals, of which n rows are real (the others 0)."""
    n = n.clamp(min=4)
    joint = (k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) * l.sum(1)).sum()
    return joint / (n * (n - 3))


class CKA(TokenRelation):
    """1 - CKA between the student's and the teacher's vectors; no projection.

    Reduction: one number a layer. Mask: padded tokens are left out. Power of T: none. Units: none, it depends on the
    batch. Source: third-party code; which layers and weights help is unknown. Degenerate: no spread gives 1; two rows
    always give 0 when biased; fewer than 4 rows give 1 when unbiased. With fewer rows than dimensions the biased form
    sees little (unrelated features of width 384 have CKA .92 at 32 rows): hence ``tokens`` by default.

    Args:
        unbiased: the unbiased estimate.
        rows, pool, layer_reduce: as in :class:`TokenRelation`.
    """

    def __init__(
        self, unbiased: bool = False, rows: str = "tokens", pool: str = "mean", layer_reduce: str = "sum"
    ) -> None:
        super().__init__(rows, pool, layer_reduce)
        self.unbiased = unbiased

    def relation(self, number: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`cka_loss`."""
        return cka_loss(student, teacher, self.mask(student, batch), self.unbiased)
