"""SP: similarity-preserving distillation (Tung and Mori, ICCV 2019, arXiv 1907.09682; third-party code)."""

from __future__ import annotations

from torch import Tensor

from kdexp.objectives.base import Batch
from kdexp.objectives.common import unit, wide
from kdexp.objectives.pooled import TokenRelation


def similarity_preserving(student: Tensor, teacher: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Sum of squared differences of row-normalised Gram matrices / B^2.

    Args:
        student, teacher: (B, D), or (B, L, D), flattened to (B, L*D) with padding set to 0.
        attention_mask: (B, L), 1 = real.
    """
    ours, theirs = (_similarities(wide(x), attention_mask) for x in (student, teacher.detach()))
    return (ours - theirs).square().mean()


def _similarities(x: Tensor, mask: Tensor | None) -> Tensor:
    """(B, B) inner products, each row of length 1 (or 0)."""
    if x.dim() == 3:
        x = (x if mask is None else x * mask.to(x.dtype)[..., None]).flatten(1)
    return unit(x @ x.T)


class SimilarityPreserving(TokenRelation):
    """How alike the sentences of a batch are to one another, matched with the teacher; no projection.

    Reduction: sum / B^2. Mask: padding is 0. Power of T: none. Units: none, it depends on the batch. Source:
    third-party code (no official one is known), weight 3000 there, or 1. Degenerate: one sentence gives 0; a zero
    vector's row stays zero and gets no gradient. A weight belongs to a batch size. Settings as in
    :class:`TokenRelation`.
    """

    def relation(self, number: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`similarity_preserving`."""
        return similarity_preserving(student, teacher, self.mask(student, batch))
