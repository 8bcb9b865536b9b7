"""What losses between two distributions of a sentence share (a base)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.config.schema import Temperature
from kdexp.heads.base import REDUCTIONS
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice


class Divergence(Objective):
    """A loss of student and teacher logits (B, C), reduced over sentences.

    Args:
        temperature: divides both sides' logits.
        reduction: ``batchmean`` = sum / sentences, ``mean`` = over sentences and classes, ``sum``.
        times_T2: multiply by T^2.
    """

    asks: ClassVar[tuple[str, ...]] = ("classes", "examples")

    def __init__(self, temperature: Temperature = 1.0, reduction: str = "batchmean", times_T2: bool = True) -> None:
        super().__init__()
        choice("reduction", reduction, REDUCTIONS)
        self.temperature, self.reduction, self.times_T2 = temperature, reduction, times_T2

    def units(self, batch: Batch) -> Tensor | None:
        """Sentences; None with reduction ``sum``."""
        return None if self.reduction == "sum" else super().units(batch)

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of logits (B, C), the teacher's constant."""
        raise NotImplementedError

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        return self.divergence(student["logits"], teacher["logits"].detach())
