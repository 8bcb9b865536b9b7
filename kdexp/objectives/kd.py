"""Prediction-layer distillation: soft labels (Hinton et al. 2015, arXiv 1503.02531) mixed with hard ones.

Toolkits differ by the reduction, by the power of T and by KL against soft cross entropy; all are named switches here.
"""

from __future__ import annotations

from torch import Tensor

from kdexp.objectives.base import Batch, Context, Features, Objective
from kdexp.objectives.common import choice, wide
from kdexp.objectives.finetune import cross_entropy, hard_loss, score_mse

REDUCTIONS = ("batchmean", "mean", "sum")
FORMS = ("kl", "soft_ce")


def _reduce(values: Tensor, reduction: str) -> Tensor:
    """(B, C) values to a scalar: ``sum``; ``batchmean`` = sum/B; ``mean`` = sum/(B*C)."""
    choice("reduction", reduction, REDUCTIONS)
    total = values.sum()
    if reduction == "batchmean":
        return total / values.shape[0]
    return total / values.numel() if reduction == "mean" else total


def _log_probabilities(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log softmax at the temperature of both sides (B, C)."""
    return (wide(student) / temperature).log_softmax(-1), (wide(teacher) / temperature).log_softmax(-1)


def logit_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    times_T2: bool = True,
    reduction: str = "batchmean",
) -> Tensor:
    """KL(softmax(teacher/T) || softmax(student/T)), logits (B, C), multiplied by T^2 if asked.

    Args:
        reduction: ``sum`` over batch and classes; ``batchmean`` = sum/B; ``mean`` = sum/(B*C), PKD's released code.
    """
    log_q, log_p = _log_probabilities(student_logits, teacher_logits, temperature)
    loss = _reduce(log_p.exp() * (log_p - log_q), reduction)
    return loss * temperature**2 if times_T2 else loss


def logit_soft_ce(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    times_T2: bool = True,
    reduction: str = "batchmean",
) -> Tensor:
    """Cross entropy with soft targets: as :func:`logit_kl` plus the teacher's entropy (same gradient)."""
    log_q, log_p = _log_probabilities(student_logits, teacher_logits, temperature)
    loss = _reduce(-log_p.exp() * log_q, reduction)
    return loss * temperature**2 if times_T2 else loss


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
    choice("form", form, FORMS)
    soft = logit_kl if form == "kl" else logit_soft_ce
    hard = cross_entropy(student_logits, labels, "sum" if reduction == "sum" else "mean")
    return (1 - alpha) * hard + alpha * soft(student_logits, teacher_logits, temperature, times_T2, reduction)


class KD(Objective):
    """(1-alpha) * hard + alpha * T^2 * KL(teacher || student) on the logits.

    With scores instead of classes: (1-alpha) * MSE(student, label) + alpha * MSE(student, teacher), mean over
    sentences (sum with reduction ``sum``); temperature, form and T^2 have no meaning there and are not used.

    Args:
        alpha: share of the soft part.
        temperature: divides both sides' logits of the soft part.
        reduction: of the soft part: ``batchmean``, ``mean`` (over B*C) or ``sum``; with ``sum`` the hard part is
            summed too.
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

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.is_regression = context.regression

    def units(self, batch: Batch) -> Tensor | None:
        """Sentences; None with reduction ``sum``."""
        return None if self.reduction == "sum" else super().units(batch)

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the mixed loss of the batch."""
        assert teacher is not None
        logits, target, labels = student["logits"], teacher["logits"].detach(), batch["labels"]
        if self.is_regression:
            reduction = "sum" if self.reduction == "sum" else "mean"
            hard = hard_loss(logits, labels, True, reduction)
            return (1 - self.alpha) * hard + self.alpha * score_mse(logits, target, reduction)
        return kd_total(logits, target, labels, self.alpha, self.temperature, self.reduction, self.form, self.times_T2)
