"""Prediction-layer distillation: soft labels (Hinton et al. 2015, arXiv 1503.02531) mixed with hard ones.

Toolkits differ by the reduction, by the power of T and by KL against soft cross entropy; all are named switches here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from kdexp.config.schema import Part, Temperature
from kdexp.heads.base import FORMS, REDUCTIONS
from kdexp.heads.classification import cross_entropy, logit_kl, logit_soft_ce, soft_labels
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice

__all__ = ["KD", "kd_total", "logit_kl", "logit_soft_ce"]


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

    softened_by: ClassVar[Mapping[str, str]] = {name: name for name in ("temperature", "form", "times_T2")}

    def __init__(
        self,
        alpha: Part = 0.5,
        temperature: Temperature = 2.0,
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
