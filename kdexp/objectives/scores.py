"""What losses on the scores of candidates share (a base); a classifier's candidates are its classes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.heads.base import Head
from kdexp.heads.classification import LABEL
from kdexp.objectives.base import Batch, Features, Objective


class Scores(Objective):
    """A loss on scores (B, K) of K candidates a query. Counterpart on classes: a sentence asks, the classes compete."""

    asks: ClassVar[tuple[str, ...]] = ("classes", "examples")

    def suits(self, head: Head) -> None:
        """Refuse a single candidate."""
        if head.width < 2:
            raise ValueError(f"{type(self).__name__} needs two candidates or more; this task has {head.width}")

    def scores(self, student: Features, teacher: Features, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the scores of both sides, the sentence's own class in column 0, the teacher's constant."""
        ours, theirs = student["logits"], teacher["logits"].detach()
        classes = batch.labels[LABEL].new_tensor(range(ours.shape[-1]))
        order = (classes[None, :] != batch.labels[LABEL][:, None]).long().argsort(dim=1, stable=True)
        return ours.gather(1, order), theirs.gather(1, order)
