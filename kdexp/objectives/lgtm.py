"""LGTM's teacher loss: the teacher learns from labels and from the student (Ren et al. 2023, arXiv 2305.09651)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.objectives.base import Batch, Context, Features, Objective
from kdexp.objectives.finetune import cross_entropy
from kdexp.objectives.kd import logit_kl


def lgtm_teacher_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, a_t: float = 0.4, temperature: float = 1.0
) -> Tensor:
    """a_t * KL(student || teacher) (mean over sentences, no T^2) + (1-a_t) * CE(teacher); gradients go to the teacher.

    The student's logits are the target here, and constant.
    """
    soft = logit_kl(teacher_logits, student_logits.detach(), temperature, times_T2=False)
    return a_t * soft + (1 - a_t) * cross_entropy(teacher_logits, labels)


class LGTMTeacher(Objective):
    """:func:`lgtm_teacher_loss` as an objective whose gradient reaches the *teacher* only; classification only.

    The student's loss is ``kd`` with alpha 1, temperature 1, no T^2; the influence term belongs to the plan.

    Args:
        a_t: share of the student's distribution.
        temperature: of both sides.
    """

    regression: ClassVar[bool] = False

    def __init__(self, a_t: float = 0.4, temperature: float = 1.0) -> None:
        super().__init__()
        self.a_t, self.temperature = a_t, temperature

    def setup(self, context: Context) -> None:
        super().setup(context)
        if context.regression:
            raise ValueError("lgtm needs classes: its teacher loss is a divergence of class distributions. Take kd")

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the teacher's loss."""
        assert teacher is not None
        return lgtm_teacher_loss(student["logits"], teacher["logits"], batch["labels"], self.a_t, self.temperature)
