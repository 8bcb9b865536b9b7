"""Response distillation for classes that arrive in steps: a counterpart (after arXiv 2110.13471 and 2204.02136)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from kdexp.config.schema import Count, Temperature
from kdexp.heads.base import Head
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice, idle, wide

FORMS = ("l2", "kl")
Factor = Annotated[float, Field(ge=-10, le=10)]


def elastic_selection(scores: Tensor, factor: float = 2.0) -> Tensor:
    """(N,) int64: 1 where a score lies above mean + factor * std (divisor N-1); of fewer than 2 scores none.

    The largest possible z-score is (N-1)/sqrt(N): below 6 scores nothing lies 2 standard deviations above the mean.
    """
    scores = wide(scores)
    n = len(scores)
    if n < 2:
        return torch.zeros_like(scores, dtype=torch.long)
    gap = scores - scores.mean()
    return (gap > factor * (gap.square().sum() / (n - 1)).sqrt()).long()


def old_class_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    selected: Tensor | None = None,
    form: str = "l2",
    temperature: float = 2.0,
) -> Tensor:
    """Distance of the first C of the student's logits (B, C') from the teacher's (B, C); old classes come first.

    Args:
        selected: (B,), 1 = takes part; None = all. None selected: 0.
        form: ``l2`` = mean over selected*C of squared differences of logits; ``kl`` = T^2 * KL of the softmax over
            the old classes, mean over selected.

    Raises:
        ValueError: the teacher knows more classes than the student.
    """
    choice("form", form, FORMS)
    old = teacher_logits.shape[-1]
    if old > student_logits.shape[-1]:
        raise ValueError(f"the teacher knows {old} classes, the student {student_logits.shape[-1]}: old classes go on")
    s, t = wide(student_logits)[:, :old], wide(teacher_logits.detach())
    if form == "l2":
        rows = (s - t).square().mean(-1)
    else:
        log_q, log_p = (s / temperature).log_softmax(-1), (t / temperature).log_softmax(-1)
        rows = (log_p.exp() * (log_p - log_q)).sum(-1) * temperature**2
    if selected is None:
        return rows.mean()
    chosen = selected.to(rows.dtype)
    return (rows * chosen).sum() / chosen.sum().clamp(min=1)


class Response(Objective):
    """Old classes' responses on the sentences that the teacher is surest about.

    **A counterpart of response distillation for incremental detection**: sentences take the place of anchors; the
    teacher's classes are the student's first ones. Reduction: mean over selected sentences (``l2``: and old classes).
    Mask: none needed. Power of T: 2 for ``kl``, none for ``l2``. Units: none, the selection depends on the batch.
    Source: code of the successor (classification responses whose score lies above mean + 2 std of all anchors,
    squared error of raw logits); a batch has few sentences, so the factor is smaller here. Degenerate: nothing
    selected gives 0; below 6 sentences nothing lies 2 std above.

    Args:
        old_classes: the first so many classes are old; null = all that the teacher knows.
        factor: standard deviations above the mean from which on a sentence is selected.
        form: ``l2`` or ``kl``.
        temperature: of ``kl``.
    """

    asks: ClassVar[tuple[str, ...]] = ("classes", "examples")
    batchwise = True

    def __init__(
        self,
        old_classes: Count | None = None,
        factor: Factor = 0.0,
        form: str = "l2",
        temperature: Temperature = 2.0,
    ) -> None:
        super().__init__()
        choice("response.form", form, FORMS)
        if form == "l2":
            idle("response.form=l2", {"temperature": (temperature, 2.0)})
        self.old_classes, self.factor, self.form, self.temperature = old_classes, factor, form, temperature

    def suits(self, head: Head) -> None:
        """Refuse more old classes than there are."""
        if self.old_classes is not None and self.old_classes > head.width:
            raise ValueError(
                f"response.old_classes={self.old_classes}, and the task has {head.width}: name a part of them, or null"
            )

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        old = wide(teacher["logits"].detach())[:, : self.old_classes]
        sure = old.softmax(-1).amax(-1) if old.shape[-1] > 1 else old.sigmoid()[:, 0]
        chosen = elastic_selection(sure, self.factor)
        return old_class_kd(student["logits"], old, chosen, self.form, self.temperature)
