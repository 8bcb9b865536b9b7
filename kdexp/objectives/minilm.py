"""MiniLM: attention distributions and value relations of one layer (Wang et al. 2020, arXiv 2002.10957)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.objectives.att_kl import attention_kl
from kdexp.objectives.attention import LayerPairs, scores_of
from kdexp.objectives.common import merge_heads
from kdexp.objectives.val_kl import relation_kl


def minilm(
    student_scores: Tensor,
    teacher_scores: Tensor,
    student_values: Tensor,
    teacher_values: Tensor,
    attention_mask: Tensor,
    heads: int,
    variant: str = "pad_aware",
) -> Tensor:
    """attention_kl + relation_kl of the values, unweighted; scores (B, H, L, L), values (B, L, D)."""
    attention = attention_kl(student_scores, teacher_scores, attention_mask, variant)
    return attention + relation_kl(student_values, teacher_values, attention_mask, heads, variant)


class MiniLM(LayerPairs):
    """Attention KL + value-relation KL, by default of the last layer of both models (widths may differ).

    Settings: ``variant`` (``pad_aware``, ``as_coded``) and ``layer_reduce`` (``sum``, ``mean``).
    """

    needs: ClassVar[tuple[str, ...]] = ("query", "key", "value")
    answers: ClassVar[bool] = False
    same_heads: ClassVar[bool] = True
    default_mapping: ClassVar[str] = "last_only"

    def layer_loss(self, student: dict[str, Tensor], teacher: dict[str, Tensor], mask: Tensor) -> Tensor:
        """:func:`minilm` of one layer."""
        values = merge_heads(student["value"]), merge_heads(teacher["value"])
        heads = student["value"].shape[1]
        return minilm(scores_of(student), scores_of(teacher), *values, mask, heads, self.variant)
