"""Att-KL: divergence of attention distributions (How to Distill your BERT, arXiv 2305.15032; MiniLM's first term)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.objectives.attention import LayerPairs, scores_of
from kdexp.objectives.common import choice, row_kl

VARIANTS = ("pad_aware", "as_coded")
FLOOR = 1e-7


def attention_kl(
    student_scores: Tensor, teacher_scores: Tensor, attention_mask: Tensor, variant: str = "pad_aware"
) -> Tensor:
    """KL(teacher row || student row) of attention probabilities; scores (B, H, L, L) before the mask.

    Padded keys have probability 0 on both sides; student probabilities count as 1e-7 at least.

    Args:
        attention_mask: (B, L), 1 = real token.
        variant: ``pad_aware`` = mean over rows of real queries (times heads); ``as_coded`` = sum / (B*H*L), rows of
            padded queries included.
    """
    choice("variant", variant, VARIANTS)
    return row_kl(student_scores, teacher_scores, attention_mask, pad_rows=variant == "as_coded", floor=FLOOR)


class AttKL(LayerPairs):
    """Sum over matched layers of the mean over real query rows and heads of KL(teacher || student).

    Settings: ``variant`` (``pad_aware``, ``as_coded``) and ``layer_reduce`` (``sum``, ``mean``).
    """

    needs: ClassVar[tuple[str, ...]] = ("query", "key")
    answers: ClassVar[bool] = False
    same_heads: ClassVar[bool] = True

    def layer_loss(self, student: dict[str, Tensor], teacher: dict[str, Tensor], mask: Tensor) -> Tensor:
        """:func:`attention_kl` of one layer."""
        return attention_kl(scores_of(student), scores_of(teacher), mask, self.variant)
