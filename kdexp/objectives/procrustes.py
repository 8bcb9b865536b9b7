"""Procrustes distance: what is left after the best rotation (after arXiv 2509.25253; abstract only)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdexp.objectives.base import Batch
from kdexp.objectives.common import wide
from kdexp.objectives.pooled import TokenRelation, centred, frobenius, masked_rows


def procrustes(
    student: Tensor,
    teacher: Tensor,
    attention_mask: Tensor | None = None,
    center: bool = True,
    normalize: bool = True,
    squared: bool = True,
) -> Tensor:
    """|X|^2 + |Y|^2 - 2 * (sum of singular values of X^T Y) of rows (N, D), or of all real tokens; widths may differ.

    Args:
        attention_mask: (B, L), 1 = real.
        center: columns minus their means.
        normalize: each side divided by its Frobenius norm; a zero side stays zero.
        squared: False takes the root.
    """
    sides = []
    for states in (student, teacher.detach()):
        rows, real = masked_rows(wide(states), attention_mask)
        rows = centred(rows, real) if center else rows
        if normalize:
            size = frobenius(rows)
            rows = rows / torch.where(size > 0, size, 1.0)
        sides.append(rows)
    x, y = sides
    distance = (x.square().sum() + y.square().sum() - 2 * (x * (y @ _rotation(x, y))).sum()).clamp(min=0)
    if squared:
        return distance
    nothing = distance <= 1e-24
    return torch.where(nothing, 0.0, torch.where(nothing, 1.0, distance).sqrt())


@torch.no_grad()
def _rotation(x: Tensor, y: Tensor) -> Tensor:
    """The map (D_y, D_x) that turns y onto x best, from the singular vectors of X^T Y; a constant.

    Its inner product with X^T Y is the sum of singular values, and it is that sum's derivative: no gradient has to
    pass through a decomposition, which has none where singular values repeat. With fewer rows than dimensions it is
    worked out on an N x N matrix.
    """
    n = len(x)
    if n < min(x.shape[1], y.shape[1]):
        (left, a), (right, b) = torch.linalg.qr(x.T), torch.linalg.qr(y.T)
        u, s, v = torch.linalg.svd(a @ b.T)
        u, v = left @ u, right @ v.T
    else:
        u, s, v = torch.linalg.svd(x.T @ y, full_matrices=False)
        v = v.T
    keep = (s > s.max() * 1e-7).to(u.dtype)
    return (v * keep) @ u.T


class Procrustes(TokenRelation):
    """Distance of the student's vectors from the teacher's after the best rotation; no projection.

    Reduction: one number a layer, in [0, 2] when normalised and squared. Mask: padded tokens are left out. Power of
    T: none. Units: none, it depends on the batch. Source: abstract only; centring, scaling, root, layers and weight
    are ours. Degenerate: no spread gives 1 (a side without length); directions without spread get no gradient.

    Args:
        center, normalize, squared: as in :func:`procrustes`.
        rows, pool, layer_reduce: as in :class:`TokenRelation`.
    """

    def __init__(
        self,
        center: bool = True,
        normalize: bool = True,
        squared: bool = True,
        rows: str = "sentences",
        pool: str = "mean",
        layer_reduce: str = "sum",
    ) -> None:
        super().__init__(rows, pool, layer_reduce)
        self.center, self.normalize, self.squared = center, normalize, squared

    def relation(self, number: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`procrustes`."""
        mask = self.mask(student, batch)
        return procrustes(student, teacher, mask, self.center, self.normalize, self.squared)
