"""Reverse KL: the student in front, which seeks modes (as in MiniLLM and GKD; third-party code of toolkits)."""

from __future__ import annotations

from torch import Tensor

from kdexp.heads.classification import logit_kl
from kdexp.objectives.divergence import Divergence


def reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    times_T2: bool = True,
    reduction: str = "batchmean",
) -> Tensor:
    """KL(softmax(student/T) || softmax(teacher/T)) of logits (B, C); the gradient flows through both factors."""
    return logit_kl(teacher_logits.detach(), student_logits, temperature, times_T2, reduction)


class ReverseKL(Divergence):
    """T^2 * KL(student || teacher).

    Reduction: sum / sentences by default. Mask: none needed. Power of T: 2. Units: sentences. Source: toolkits for
    language models; no claim for encoders. Degenerate: nearly the forward KL on two classes; one class gives 0 and is
    not offered. Settings as in :class:`Divergence`.
    """

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """:func:`reverse_kl`."""
        return reverse_kl(student, teacher, self.temperature, self.times_T2, self.reduction)
