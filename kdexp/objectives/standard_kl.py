"""Logit standardisation (Sun et al., CVPR 2024, arXiv 2403.01427; official code): KL of z-scored logits."""

from __future__ import annotations

from torch import Tensor

from kdexp.config.schema import Temperature
from kdexp.heads.base import Head
from kdexp.heads.classification import logit_kl
from kdexp.objectives.common import alive, wide
from kdexp.objectives.divergence import Divergence


def standardize_logits(logits: Tensor, eps: float = 1e-7) -> Tensor:
    """(z - mean) / (std + eps) of each row of logits (B, C), std with divisor C-1; a constant row gives zeros."""
    logits = wide(logits)
    centred = alive(logits - logits.mean(-1, keepdim=True))
    return centred / ((centred.square().sum(-1, keepdim=True) / (logits.shape[-1] - 1)).sqrt() + eps)


def standard_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 2.0,
    times_T2: bool = True,
    reduction: str = "batchmean",
) -> Tensor:
    """:func:`kdexp.heads.classification.logit_kl` of :func:`standardize_logits` of both sides, logits (B, C)."""
    ours, theirs = standardize_logits(student_logits), standardize_logits(teacher_logits.detach())
    return logit_kl(ours, theirs, temperature, times_T2, reduction)


class StandardKL(Divergence):
    """T^2 * KL(softmax(Z(z_t)/T) || softmax(Z(z_s)/T)), Z = a sentence's z-score over classes.

    Reduction: sum / sentences by default. Mask: none needed. Power of T: 2. Units: sentences. Source: official code,
    base temperature 2, weight 9 beside 0.1 times hard labels. Degenerate: on two classes every z-score is +-0.707, so
    nothing is left to learn and the task is refused; one class likewise; constant logits count as zeros, without a
    gradient.

    Settings as in :class:`Divergence`.
    """

    def __init__(self, temperature: Temperature = 2.0, reduction: str = "batchmean", times_T2: bool = True) -> None:
        super().__init__(temperature, reduction, times_T2)

    def suits(self, head: Head) -> None:
        """Refuse two classes."""
        if head.width <= 2:
            raise ValueError(
                f"standard_kl has nothing to learn from {head.width} classes: z-scores of two logits are always "
                "+-0.707, whatever the logits. Take a task of three classes or more, or kd"
            )

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """:func:`standard_kl`."""
        return standard_kl(student, teacher, self.temperature, self.times_T2, self.reduction)
