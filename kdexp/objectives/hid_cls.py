"""Hid-CLS: squared error of the first token's hidden state (How to Distill your BERT, arXiv 2305.15032)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.objectives.base import Batch, Features
from kdexp.objectives.common import choice, over_layers, some, wide
from kdexp.objectives.projections import Projected

VARIANTS = ("correct", "bug_a1")


def hidden_cls(student: Tensor, teacher: Tensor, variant: str = "correct") -> Tensor:
    """Mean squared difference of hidden states (B, L, D) at the first token.

    Args:
        variant: ``correct`` = mean over B*D at position 0; ``bug_a1`` = what the released task-agnostic code does by
            a swapped axis: mean over L*D of *all tokens of sentence 0*, other sentences ignored.
    """
    choice("variant", variant, VARIANTS)
    gap = wide(student) - wide(teacher)
    return (gap[:, 0] if variant == "correct" else gap[0]).square().mean()


class HidCLS(Projected):
    """Sum over matched layers of the mean over B*D of (W h_student[CLS] - h_teacher[CLS])^2. No mask needed.

    Settings as in :class:`Projected`, and

    Args:
        variant: ``correct``, or ``bug_a1`` to reproduce the released defect (which also defeats gradient
            accumulation: each micro-batch looks at its own first sentence).
    """

    answers: ClassVar[bool] = False

    def __init__(
        self,
        variant: str = "correct",
        projection: str = "auto",
        share_projection: bool = False,
        layer_reduce: str = "sum",
    ) -> None:
        super().__init__(projection, share_projection, layer_reduce)
        choice("variant", variant, VARIANTS)
        self.variant = variant

    def undivided(self) -> str:
        """The released defect looks at the first sentence of what it is given."""
        return (
            ""
            if self.variant == "correct"
            else f"(variant={self.variant}) looks at the first sentence of a batch alone"
        )

    def reads(self) -> str:
        """The first position; all of them as the released defect does."""
        return "first" if self.variant == "correct" else "all"

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all matched layers."""
        assert teacher is not None
        ours, theirs = self.matched(student, teacher)
        losses = [hidden_cls(s, t, self.variant) for s, t in zip(ours, theirs, strict=True)]
        self.note(losses)
        return over_layers(losses, self.layer_reduce, some(student))
