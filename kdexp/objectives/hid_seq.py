"""Hid-Seq: squared error of hidden states over whole sequences (How to Distill your BERT, arXiv 2305.15032)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from kdexp.objectives.base import Batch, Features, Pairs
from kdexp.objectives.common import OfTokens, choice, mask_for, mask_of, over_layers, token_mean, wide
from kdexp.objectives.projections import Projected

VARIANTS = ("pad_aware", "as_coded")


def hidden_mse(
    student: Tensor, teacher: Tensor, attention_mask: Tensor | None = None, variant: str = "pad_aware"
) -> Tensor:
    """Mean squared difference of hidden states (B, L, D).

    Args:
        attention_mask: (B, L), 1 = real token; needed by ``pad_aware``.
        variant: ``pad_aware`` = mean over real tokens times D; ``as_coded`` = mean over all B*L*D elements.
    """
    choice("variant", variant, VARIANTS)
    return token_mean((wide(student) - wide(teacher)).square(), mask_of(variant, attention_mask))


def hidden_mse_layers(
    student: list[Tensor],
    teacher: list[Tensor],
    pairs: Pairs,
    attention_mask: Tensor | None = None,
    variant: str = "as_coded",
    reduce: str = "sum",
    note: Callable[[list[Tensor]], None] | None = None,
) -> Tensor:
    """Sum (or mean) of :func:`hidden_mse` over pairs of positions (from 0) in the two given lists.

    ``note`` hears each pair's loss.
    """
    losses = [hidden_mse(student[s], teacher[t], attention_mask, variant) for s, t in pairs]
    if note is not None:
        note(losses)
    return over_layers(losses, reduce, student[0] if student else teacher[0])


class HidSeq(OfTokens, Projected):
    """Sum over matched layers of the mean over real tokens times D of (W h_student - h_teacher)^2.

    Default mapping: uniform over hidden states, embedding output included. Settings as in :class:`Projected`, and

    Args:
        variant: ``pad_aware`` or ``as_coded`` (padding inside the mean).
    """

    answers: ClassVar[bool] = False

    def __init__(
        self,
        variant: str = "pad_aware",
        projection: str = "auto",
        share_projection: bool = False,
        layer_reduce: str = "sum",
    ) -> None:
        super().__init__(projection, share_projection, layer_reduce)
        choice("variant", variant, VARIANTS)
        self.variant = variant

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all matched layers."""
        assert teacher is not None
        ours, theirs = self.matched(student, teacher)
        pairs = [(i, i) for i in range(len(ours))]
        mask = mask_for(batch, ours[0]) if ours else batch.mask
        return hidden_mse_layers(ours, theirs, pairs, mask, self.variant, self.layer_reduce, self.note)
