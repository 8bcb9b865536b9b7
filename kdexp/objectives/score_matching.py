"""Score matching: who of a batch resembles whom (as in NeMo's Automodel)."""

from __future__ import annotations

from torch import Tensor

from kdexp.config.schema import Temperature
from kdexp.objectives.base import Batch
from kdexp.objectives.common import unit, wide
from kdexp.objectives.pooled import Relation


def score_matching(student: Tensor, teacher: Tensor, temperature: float = 0.02) -> Tensor:
    """Sum of squared differences / B of the softmax over rows of cosine / temperature, vectors (B, D)."""
    ours, theirs = ((unit(wide(x)) @ unit(wide(x)).T / temperature).softmax(-1) for x in (student, teacher.detach()))
    return (ours - theirs).square().sum() / len(student)


class ScoreMatching(Relation):
    """Squared difference of the sides' softmax over a batch's cosines, the diagonal included; no projection.

    Reduction: sum / B. Mask: in the pooling. Power of T: none. Units: none, it depends on the batch. Source:
    third-party code, temperature .02, at which only pairs with a cosine above about .9 count; choose it by the
    teacher's spread. Degenerate: one sentence gives 0; a zero vector is alike to none, without a gradient.

    Args:
        temperature: divides the cosines.
        pool, layer_reduce: as in :class:`Relation`.
    """

    def __init__(self, temperature: Temperature = 0.05, pool: str = "mean", layer_reduce: str = "sum") -> None:
        super().__init__(pool, layer_reduce)
        self.temperature = temperature

    def relation(self, number: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`score_matching`."""
        return score_matching(student, teacher, self.temperature)
