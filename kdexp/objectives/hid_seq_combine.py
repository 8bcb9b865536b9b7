"""Hid-Seq, combine: all hidden states at once, a map on the teacher's side (released code of arXiv 2305.15032)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.objectives.base import Batch, Context, Features
from kdexp.objectives.common import OfTokens, choice, exact, layers_of, mask_for, picked, targets
from kdexp.objectives.hid_seq import VARIANTS, hidden_mse


def hidden_combine(
    student: list[Tensor],
    teacher: list[Tensor],
    weight: Tensor,
    bias: Tensor,
    attention_mask: Tensor | None = None,
    variant: str = "as_coded",
) -> Tensor:
    """Student states side by side, (B, L, M_s*D_s), against a linear map of the teacher's, (B, L, M_t*D_t).

    Args:
        weight, bias: (M_s*D_s, M_t*D_t) and (M_s*D_s,); y = x W^T + b.
        variant: ``as_coded`` = mean over all elements, ``pad_aware`` = over real tokens (needs the mask).
    """
    with exact(weight):
        mapped = F.linear(torch.cat(teacher, -1), weight, bias)
    return hidden_mse(torch.cat(student, -1), mapped, attention_mask, variant)


class HidSeqCombine(OfTokens):
    """Mean squared error between all student states and a learned linear map of all teacher states.

    The map is trained with the student (the released task-agnostic code forgot to). It can also collapse towards
    what is easy to reach: the target moves, which is in the method's nature.

    Args:
        variant: ``pad_aware`` or ``as_coded``.
    """

    needs: ClassVar[tuple[str, ...]] = ("hidden",)
    answers: ClassVar[bool] = False
    layers: ClassVar[str] = "hidden"
    default_mapping: ClassVar[str] = "combine"

    def __init__(self, variant: str = "pad_aware") -> None:
        super().__init__()
        choice("variant", variant, VARIANTS)
        self.variant = variant

    def setup(self, context: Context) -> None:
        super().setup(context)
        assert context.teacher is not None
        self.ours = sorted(set(layers_of(self.pairs, 0)))
        self.theirs = sorted(set(layers_of(self.pairs, 1)))
        self.map = nn.Linear(
            len(self.theirs) * context.teacher.hidden_size, len(self.ours) * context.student.hidden_size
        )

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over real tokens."""
        assert teacher is not None
        ours, theirs = picked(student, "hidden", self.ours), targets(teacher, "hidden", self.theirs)
        return hidden_combine(ours, theirs, self.map.weight, self.map.bias, mask_for(batch, ours[0]), self.variant)
