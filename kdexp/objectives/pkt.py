"""PKT: probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018; official code)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdexp.objectives.base import Batch
from kdexp.objectives.common import alive, wide
from kdexp.objectives.pooled import Relation


def pkt(student: Tensor, teacher: Tensor, eps: float = 1e-7) -> Tensor:
    """Mean over B*B of p * log((p+eps)/(q+eps)); p, q: the sides' tables of (cosine + 1)/2, rows divided by sums."""
    q, p = (_affinities(wide(x), eps) for x in (student, teacher.detach()))
    return (p * ((p + eps) / (q + eps)).log()).mean()


def _affinities(x: Tensor, eps: float) -> Tensor:
    """(B, B) cosines moved to [0, 1], each row divided by its sum; a zero vector is alike to all by 1/2."""
    x = alive(x)
    squares = x.square().sum(-1, keepdim=True)
    nothing = squares <= 1e-24
    rows = torch.where(nothing, 0.0, x / (torch.where(nothing, 1.0, squares).sqrt() + eps))
    table = (rows @ rows.T + 1) / 2
    return table / table.sum(-1, keepdim=True)


class PKT(Relation):
    """KL between the sides' distributions of similarity within a batch; no projection.

    Reduction: mean over B^2, so the value is about 1/B^2: a weight belongs to a batch size (30000 in the source).
    Mask: in the pooling. Power of T: none. Units: none, it depends on the batch. Source: official code, eps 1e-7 in
    norms, numerator and denominator. Degenerate: one sentence gives 0; a zero vector has similarity 1/2 to all,
    without a gradient. Settings as in :class:`Relation`.
    """

    def relation(self, number: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`pkt`."""
        return pkt(student, teacher)
