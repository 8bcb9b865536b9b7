"""Prediction-layer distillation: soft labels (Hinton et al. 2015, arXiv 1503.02531) mixed with hard ones.

Toolkits differ by the reduction, by the power of T and by KL against soft cross entropy; all are named switches here.
"""

from __future__ import annotations

from torch import Tensor

from kdexp.heads.base import FORMS, REDUCTIONS
from kdexp.heads.classification import cross_entropy, logit_kl, logit_soft_ce, soft_labels
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice, wide

__all__ = ["KD", "kd_total", "logit_kl", "logit_kl_limit", "logit_soft_ce", "vanilla_kd_total"]


def logit_kl_limit(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Limit of T^2 * KL (batchmean) for T to infinity: mean of sum_c (d_c - mean d)^2 / (2C), d = teacher - student."""
    gap = wide(teacher_logits) - wide(student_logits)
    gap = gap - gap.mean(-1, keepdim=True)
    return (gap.square().sum(-1) / (2 * gap.shape[-1])).mean()


def kd_total(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float,
    temperature: float,
    reduction: str = "batchmean",
    form: str = "kl",
    times_T2: bool = True,
) -> Tensor:
    """(1-alpha) * CE + alpha * soft-label loss. CE is summed with reduction ``sum``, else averaged over sentences."""
    hard = cross_entropy(student_logits, labels, "sum" if reduction == "sum" else "mean")
    return (1 - alpha) * hard + alpha * soft_labels(
        student_logits, teacher_logits, temperature, form, reduction, times_T2
    )


def vanilla_kd_total(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float,
    a: float,
    divide_by_sentences: bool,
) -> Tensor:
    """How to Distill your BERT, released code: :func:`kd_total` summed over the batch, or that divided by B."""
    total = kd_total(student_logits, teacher_logits, labels, alpha=a, temperature=temperature, reduction="sum")
    return total / len(labels) if divide_by_sentences else total


class KD(Objective):
    """(1-alpha) * hard + alpha * soft, on whatever the head answers: its own loss and its own distance to the teacher.

    For classes: cross entropy, and T^2 * KL(teacher || student). For scores: MSE with the label and MSE with the
    teacher's score, where temperature, form and T^2 have no meaning and are not used.

    Args:
        alpha: share of the soft part.
        temperature: divides both sides' logits of the soft part.
        reduction: of the soft part: ``batchmean``, ``mean`` (over units and classes) or ``sum``; with ``sum`` the hard
            part is summed too.
        form: ``kl`` or ``soft_ce`` (same gradient, other value).
        times_T2: multiply the soft part by T^2.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        temperature: float = 2.0,
        reduction: str = "batchmean",
        form: str = "kl",
        times_T2: bool = True,
    ) -> None:
        super().__init__()
        choice("kd.reduction", reduction, REDUCTIONS)
        choice("kd.form", form, FORMS)
        if not 0 <= alpha <= 1 or temperature <= 0:
            raise ValueError(
                f"kd needs 0 <= alpha <= 1 and temperature > 0; got alpha={alpha}, temperature={temperature}"
            )
        self.alpha, self.temperature, self.reduction = alpha, temperature, reduction
        self.form, self.times_T2 = form, times_T2

    def units(self, batch: Batch) -> Tensor | None:
        """Units of the head; None with reduction ``sum``."""
        return None if self.reduction == "sum" else self.head.units(batch)

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the mixed loss of the batch."""
        assert teacher is not None
        hard = self.head.loss(student, batch, "sum" if self.reduction == "sum" else "mean")
        soft = self.head.soft_loss(student, teacher, batch, self.temperature, self.form, self.reduction, self.times_T2)
        return (1 - self.alpha) * hard + self.alpha * soft
