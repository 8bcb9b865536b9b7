"""AID counterpart: adaptive instance distillation (after arXiv 2201.11097, of which the abstract is known)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.config.schema import NotNegative, Temperature
from kdexp.heads.classification import LABEL, log_probabilities
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice, wide

KINDS = ("loss", "agreement")


def aid_weights(
    teacher_logits: Tensor, labels: Tensor, alpha: float = 0.1, kind: str = "loss", normalize: bool = False
) -> Tensor:
    """Weights (B,): exp(-alpha * the teacher's cross entropy), or of ``agreement`` exp(-alpha * [teacher is wrong]).

    Args:
        normalize: divide by their mean.
    """
    choice("kind", kind, KINDS)
    logits = wide(teacher_logits.detach())
    if kind == "loss":
        wrong = F.cross_entropy(logits, labels.long(), reduction="none")
    else:
        wrong = (logits.argmax(-1) != labels).to(logits.dtype)
    weights = torch.exp(-alpha * wrong)
    return weights / weights.mean() if normalize else weights


def aid_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 0.1,
    temperature: float = 2.0,
    kind: str = "loss",
    normalize: bool = False,
) -> Tensor:
    """Mean over sentences of :func:`aid_weights` * T^2 * KL(teacher || student) at T, logits (B, C)."""
    log_q, log_p = log_probabilities(student_logits, teacher_logits.detach(), temperature)
    rows = (log_p.exp() * (log_p - log_q)).sum(-1)
    return (aid_weights(teacher_logits, labels, alpha, kind, normalize) * rows).mean() * temperature**2


class AID(Objective):
    """T^2 * mean over sentences of w_i * KL_i, where w_i falls with the teacher's own error on sentence i.

    **A counterpart of adaptive instance distillation**: sentences take the place of images. Reduction: mean over
    sentences. Mask: none needed. Power of T: 2. Units: sentences; with ``normalize`` it depends on the batch. Source:
    abstract; alpha .1 by third-party text, the weight of the whole is unknown. exp(-alpha * CE) = p_y^alpha, so alpha
    .1 is almost plain KD. Degenerate: alpha 0 is plain KD. A teacher that knows its training set by heart weighs
    everything by 1.

    Args:
        alpha: how fast the weight falls.
        temperature: divides both sides' logits.
        kind: ``loss`` (the teacher's cross entropy) or ``agreement`` (whether it is right).
        normalize: keep the mean weight of a batch at 1.
    """

    asks: ClassVar[tuple[str, ...]] = ("classes", "examples")

    def __init__(
        self, alpha: NotNegative = 0.5, temperature: Temperature = 2.0, kind: str = "loss", normalize: bool = True
    ) -> None:
        super().__init__()
        choice("aid.kind", kind, KINDS)
        self.alpha, self.temperature, self.kind, self.normalize = alpha, temperature, kind, normalize
        self.batchwise = normalize

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        settings = {"alpha": self.alpha, "temperature": self.temperature}
        labels = batch.labels[LABEL]
        return aid_kl(
            student["logits"], teacher["logits"], labels, kind=self.kind, normalize=self.normalize, **settings
        )
