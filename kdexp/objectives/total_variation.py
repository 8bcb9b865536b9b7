"""Total variation distance between teacher and student (as in DistillKit)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from kdexp.config.schema import Temperature
from kdexp.heads.classification import log_probabilities, reduced
from kdexp.objectives.divergence import Divergence

Power = Annotated[int, Field(ge=0, le=2)]


def total_variation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    times_T2: bool = True,
    reduction: str = "batchmean",
) -> Tensor:
    """Half the L1 distance of softmax(teacher/T) and softmax(student/T) over the classes of logits (B, C)."""
    log_q, log_p = log_probabilities(student_logits, teacher_logits.detach(), temperature)
    loss = reduced((log_p.exp() - log_q.exp()).abs() / 2, reduction)
    return loss * temperature**2 if times_T2 else loss


class TotalVariation(Divergence):
    """T^power * half the L1 distance of the two distributions, in [0, 1] a sentence at T = 1.

    Reduction: sum / sentences by default. Mask: none needed. Power of T: 1 by default (ours: the gradient falls with
    1/T), 2 in DistillKit. Units: sentences. Degenerate: not differentiable where both sides agree; there the gradient
    is 0. On two classes it is |p_1 - q_1|.

    Args:
        power: of T.
        temperature, reduction: as in :class:`Divergence`.
    """

    def __init__(self, power: Power = 1, temperature: Temperature = 1.0, reduction: str = "batchmean") -> None:
        super().__init__(temperature, reduction, times_T2=False)
        self.power = power

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """:func:`total_variation` times its power of T."""
        return total_variation(student, teacher, self.temperature, False, self.reduction) * self.temperature**self.power
