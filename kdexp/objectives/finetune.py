"""Hard labels only: the baseline without distillation, and the task loss of other objectives."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from kdexp.objectives.base import Batch, Context, Features, Objective
from kdexp.objectives.common import wide


def cross_entropy(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Cross entropy of logits (B, C) with integer labels (B,), natural logarithm, temperature 1.

    Args:
        reduction: ``mean`` or ``sum`` over the batch.
    """
    return F.cross_entropy(wide(logits), labels.long(), reduction=reduction)


def score_mse(scores: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error of scores, each (B,) or (B, 1), over the batch; never a B x B broadcast.

    Raises:
        ValueError: if either side has more than one value a sentence.
    """
    flat = [x.squeeze(-1) if x.dim() == 2 else x for x in (wide(scores), wide(target))]
    if flat[0].dim() != 1 or flat[0].shape != flat[1].shape:
        raise ValueError(
            f"a regression task compares one score a sentence; got shapes {tuple(scores.shape)} and "
            f"{tuple(target.shape)}. Give the student one output, or call the task a classification"
        )
    return F.mse_loss(flat[0], flat[1].to(flat[0].dtype), reduction=reduction)


def hard_loss(logits: Tensor, labels: Tensor, regression: bool, reduction: str = "mean") -> Tensor:
    """The task's own loss: :func:`cross_entropy` for classes, :func:`score_mse` for scores."""
    return score_mse(logits, labels, reduction) if regression else cross_entropy(logits, labels, reduction)


class Finetune(Objective):
    """Task loss alone: mean over sentences of the cross entropy, or of the squared error of the score."""

    uses_teacher: ClassVar[bool] = False

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.is_regression = context.regression

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the mean task loss of the batch."""
        return hard_loss(student["logits"], batch["labels"], self.is_regression)
