"""LGTM's teacher loss: the teacher learns from labels and from the student (Ren et al. 2023, arXiv 2305.09651)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdexp.heads.base import Head
from kdexp.heads.batch import Batch, Features
from kdexp.heads.classification import LABEL, Classification


def teacher_loss(
    head: Head, student: Features, teacher: Features, batch: Batch, a_t: float, temperature: float
) -> Tensor:
    """a_t * soft loss (student || teacher, no T^2) + (1-a_t) * task loss of the teacher; gradients go to the teacher.

    The student's answers are the target here, and constant.
    """
    soft = head.soft_loss(teacher, student, batch, temperature, times_T2=False)
    return a_t * soft + (1 - a_t) * head.loss(teacher, batch)


def lgtm_teacher_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, a_t: float = 0.4, temperature: float = 1.0
) -> Tensor:
    """:func:`teacher_loss` of classes: a_t * KL(student || teacher) (mean over sentences) + (1-a_t) * CE(teacher)."""
    head = Classification([str(c) for c in range(teacher_logits.shape[-1])])
    batch = Batch({}, None, {LABEL: labels}, torch.arange(len(labels)))
    return teacher_loss(head, {"logits": student_logits}, {"logits": teacher_logits}, batch, a_t, temperature)
