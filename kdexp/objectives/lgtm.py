"""LGTM's teacher loss: the teacher learns from labels and from the student (Ren et al. 2023, arXiv 2305.09651)."""

from __future__ import annotations

from torch import Tensor

from kdexp.heads.base import Head
from kdexp.heads.batch import Batch, Features


def teacher_loss(
    head: Head, student: Features, teacher: Features, batch: Batch, a_t: float, temperature: float
) -> Tensor:
    """a_t * soft loss (student || teacher, no T^2) + (1-a_t) * task loss of the teacher; gradients go to the teacher.

    The student's answers are the target here, and constant.
    """
    soft = head.soft_loss(teacher, student, batch, temperature, times_T2=False)
    return a_t * soft + (1 - a_t) * head.loss(teacher, batch)
