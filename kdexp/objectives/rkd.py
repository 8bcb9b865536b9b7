"""RKD: relational knowledge distillation (Park et al., CVPR 2019, arXiv 1904.05068; official code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.config.schema import Weight
from kdexp.objectives.base import Batch
from kdexp.objectives.common import alive, unit, wide
from kdexp.objectives.pooled import Relation


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 (knee 1) over all B*B entries of distances divided by the mean of their positive ones, vectors (B, D).

    A pair of equal vectors counts as 1e-6 apart. One vector: 0.
    """
    return F.smooth_l1_loss(_distances(wide(student)), _distances(wide(teacher.detach())))


def _distances(x: Tensor) -> Tensor:
    """(B, B) Euclidean distances over the mean of the positive ones; the diagonal is 0."""
    squares = x.square().sum(-1)
    apart = (squares[:, None] + squares[None, :] - 2 * (x @ x.T)).clamp(min=1e-12).sqrt()
    apart = apart.masked_fill(torch.eye(len(x), dtype=torch.bool, device=x.device), 0.0)
    positive = (apart > 0).sum()
    return apart / torch.where(positive > 0, apart.sum() / positive.clamp(min=1), 1.0)


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 (knee 1) over all B^3 entries of the cosines of angles between differences of vectors (B, D)."""
    return F.smooth_l1_loss(_angles(wide(student)), _angles(wide(teacher.detach())))


def _angles(x: Tensor) -> Tensor:
    """(B, B, B): u_ij . u_ik with u_ij = (e_j - e_i) / |e_j - e_i|; equal vectors have no direction."""
    directions = unit(alive(x[None, :, :] - x[:, None, :]))
    return directions @ directions.transpose(1, 2)


def rkd(student: Tensor, teacher: Tensor, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    """distance_weight * :func:`rkd_distance` + angle_weight * :func:`rkd_angle`."""
    return distance_weight * rkd_distance(student, teacher) + angle_weight * rkd_angle(student, teacher)


class RKD(Relation):
    """distance_weight * distances + angle_weight * angles between the sentences of a batch; no projection.

    Reduction: means over all B^2 and B^3 entries, diagonals included. Mask: in the pooling. Power of T: none. Units:
    none, it depends on the batch. Source: official code (weights 1 and 2 for metric learning; benchmarks use 25 and
    50); features there are embeddings, here pooled vectors. Degenerate: one sentence, or two for both parts: 0;
    duplicates are 1e-6 apart and have no direction, without a gradient. The angles take B^3 numbers: 33 thousand at
    32 sentences, 134 million at 512.

    Args:
        distance_weight, angle_weight: of the two parts.
        pool, layer_reduce: as in :class:`Relation`.
    """

    def __init__(
        self,
        distance_weight: Weight = 1.0,
        angle_weight: Weight = 2.0,
        pool: str = "mean",
        layer_reduce: str = "sum",
    ) -> None:
        super().__init__(pool, layer_reduce)
        self.distance_weight, self.angle_weight = distance_weight, angle_weight

    def relation(self, number: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`rkd`."""
        return rkd(student, teacher, self.distance_weight, self.angle_weight)
