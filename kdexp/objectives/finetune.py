"""Hard labels only: the baseline without distillation, and the task loss of other objectives."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.heads.classification import cross_entropy
from kdexp.heads.regression import score_mse
from kdexp.objectives.base import Batch, Features, Objective

__all__ = ["Finetune", "cross_entropy", "score_mse"]


class Finetune(Objective):
    """The task's loss alone, mean over the head's units: cross entropy of classes, squared error of scores, ..."""

    uses_teacher: ClassVar[bool] = False

    def units(self, batch: Batch) -> Tensor:
        """Units of the head."""
        return self.head.units(batch)

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the mean task loss of the batch."""
        return self.head.loss(student, batch)
