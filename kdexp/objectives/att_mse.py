"""Att-MSE: squared error of attention scores before softmax (How to Distill your BERT; TinyBERT's attention term)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kdexp.objectives.attention import LayerPairs, scores_of
from kdexp.objectives.base import Batch
from kdexp.objectives.common import choice, wide

VARIANTS = ("pad_aware", "as_coded_neg_inf", "as_coded_minus_10000")


def attention_mse(
    student_scores: Tensor, teacher_scores: Tensor, attention_mask: Tensor, variant: str = "pad_aware"
) -> Tensor:
    """Mean squared difference of attention scores (B, H, L, L) before mask and softmax.

    Args:
        attention_mask: (B, L), 1 = real token.
        variant: ``pad_aware`` = mean over entries whose query and key are both real (times heads);
            ``as_coded_neg_inf`` (Fairseq) and ``as_coded_minus_10000`` (BERT) mask keys that way, set every score
            of -100 or less to 0 and average over all B*H*L*L entries.
    """
    choice("variant", variant, VARIANTS)
    student, teacher, real = wide(student_scores), wide(teacher_scores), attention_mask.bool()
    if variant == "pad_aware":
        weight = (real[:, None, :, None] & real[:, None, None, :]).to(student.dtype)
        return ((student - teacher).square() * weight).sum() / (weight.sum() * student.shape[1])
    ours, theirs = (_without_masked(x, real[:, None, None, :], variant) for x in (student, teacher))
    return (ours - theirs).square().mean()


def _without_masked(scores: Tensor, keys: Tensor, variant: str) -> Tensor:
    """Mask keys as the released code does, then set scores <= -100 to 0."""
    if variant == "as_coded_neg_inf":
        scores = scores.masked_fill(~keys, float("-inf"))
    else:
        scores = scores - 10000.0 * (~keys).to(scores.dtype)
    return torch.where(scores <= -100.0, torch.zeros_like(scores), scores)


class AttMSE(LayerPairs):
    """Sum over matched layers of the mean over real query-key entries and heads of the squared score difference.

    Args:
        variant: ``pad_aware``, ``as_coded_neg_inf`` or ``as_coded_minus_10000``; ``as_coded`` means the first of
            the two, they differ only for scores of extreme size.
        layer_reduce: ``sum`` or ``mean`` over matched layers.
    """

    needs: ClassVar[tuple[str, ...]] = ("query", "key")
    answers: ClassVar[bool] = False
    same_heads: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = (*VARIANTS, "as_coded")

    def __init__(self, variant: str = "pad_aware", layer_reduce: str = "sum") -> None:
        super().__init__(variant, layer_reduce)
        self.variant = "as_coded_neg_inf" if variant == "as_coded" else variant

    def units(self, batch: Batch) -> Tensor:
        """Entries of one head: the sum over sentences of (real tokens)^2; B*L*L as coded."""
        mask = batch.mask
        if mask is None:  # all examples are as long, so that their number weighs them
            return super().units(batch)
        counts = mask.sum(-1) if self.variant == "pad_aware" else torch.ones_like(mask).sum(-1)
        return counts.square().sum()

    def layer_loss(self, student: dict[str, Tensor], teacher: dict[str, Tensor], mask: Tensor) -> Tensor:
        """:func:`attention_mse` of one layer."""
        return attention_mse(scores_of(student), scores_of(teacher), mask, self.variant)
