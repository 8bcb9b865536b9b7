"""One class an example."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from kdexp.heads.base import FORMS, REDUCTIONS, Labelled
from kdexp.heads.batch import Batch, Features, Predictions, Targets
from kdexp.heads.common import FirstToken, choice, wide

LABEL = "label"
"""Name of an example's class id, (B,) int64, in ``batch.labels``."""


def cross_entropy(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Cross entropy of logits (B, C) with integer labels (B,), natural logarithm, temperature 1.

    Args:
        reduction: ``mean`` or ``sum`` over the batch.
    """
    return F.cross_entropy(wide(logits), labels.long(), reduction=reduction)


def reduced(values: Tensor, reduction: str) -> Tensor:
    """(N, C) values to a scalar: ``sum``; ``batchmean`` = sum/N; ``mean`` = sum/(N*C)."""
    choice("reduction", reduction, REDUCTIONS)
    total = values.sum()
    if reduction == "batchmean":
        return total / values.shape[0]
    return total / values.numel() if reduction == "mean" else total


def log_probabilities(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log softmax at the temperature of both sides (N, C)."""
    return (wide(student) / temperature).log_softmax(-1), (wide(teacher) / temperature).log_softmax(-1)


def logit_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    times_T2: bool = True,
    reduction: str = "batchmean",
) -> Tensor:
    """KL(softmax(teacher/T) || softmax(student/T)), logits (N, C), multiplied by T^2 if asked.

    Args:
        reduction: ``sum`` over rows and classes; ``batchmean`` = sum/N; ``mean`` = sum/(N*C), PKD's released code.
    """
    log_q, log_p = log_probabilities(student_logits, teacher_logits, temperature)
    loss = reduced(log_p.exp() * (log_p - log_q), reduction)
    return loss * temperature**2 if times_T2 else loss


def logit_soft_ce(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    times_T2: bool = True,
    reduction: str = "batchmean",
) -> Tensor:
    """Cross entropy with soft targets: as :func:`logit_kl` plus the teacher's entropy (same gradient)."""
    log_q, log_p = log_probabilities(student_logits, teacher_logits, temperature)
    loss = reduced(-log_p.exp() * log_q, reduction)
    return loss * temperature**2 if times_T2 else loss


def soft_labels(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, form: str, reduction: str, times_T2: bool
) -> Tensor:
    """:func:`logit_kl` or :func:`logit_soft_ce`, by name; the teacher is a constant."""
    choice("form", form, FORMS)
    soft = logit_kl if form == "kl" else logit_soft_ce
    return soft(student_logits, teacher_logits.detach(), temperature, times_T2, reduction)


def divergences(student: Tensor, teacher: Tensor, temperature: float, form: str) -> Tensor:
    """Sum over the last dimension (..., C) of p log(p/q), or of -p log q (``soft_ce``); the teacher is a constant."""
    choice("form", form, FORMS)
    log_q, log_p = log_probabilities(student, teacher.detach(), temperature)
    return (log_p.exp() * ((log_p - log_q) if form == "kl" else -log_q)).sum(-1)


def most_frequent(train: Targets, like: Targets, count: int) -> Predictions:
    """All weight on the most frequent of ``count`` answers in train; of equally frequent ones, on the lowest id."""
    counts = np.bincount(np.asarray(train[LABEL], dtype=np.int64), minlength=count)
    logits = np.zeros((len(like[LABEL]), count), dtype=np.float32)
    logits[:, int(counts.argmax())] = 1.0
    return {"logits": logits}


class Classification(Labelled):
    """A class of an example, as logits (B, C).

    Args:
        label_names: the classes in the order of their ids.
    """

    name: ClassVar[str] = "classification"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    abilities: ClassVar[frozenset[str]] = frozenset({"classes", "decisions", "distributions", "examples", "small"})

    def model_config(self) -> dict[str, Any]:
        """Return number and names of the classes; problem_type is set so that no step recompiles."""
        return {**super().model_config(), "problem_type": "single_label_classification"}

    def loss(self, outputs: Features, batch: Batch, reduction: str = "mean") -> Tensor:
        """Return the :func:`cross_entropy`."""
        return cross_entropy(outputs["logits"], batch.labels[LABEL], reduction)

    def soft_loss(
        self,
        student: Features,
        teacher: Features,
        batch: Batch,
        temperature: float = 1.0,
        form: str = "kl",
        reduction: str = "batchmean",
        times_T2: bool = True,
    ) -> Tensor:
        """Return the divergence from the teacher's distribution: :func:`soft_labels`."""
        return soft_labels(student["logits"], teacher["logits"], temperature, form, reduction, times_T2)

    def decided(self, outputs: Features, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`Head.decided`: the most probable class."""
        return {LABEL: outputs["logits"].argmax(-1)}

    def trivial(self, train: Targets, like: Targets) -> Predictions:
        """Return all weight on the most frequent class of train; of equally frequent ones, on the lowest id."""
        return most_frequent(train, like, self.width)

    def small(self, width: int, dropout: float) -> FirstToken:
        """Make a pooler on the first token with a linear map to the classes."""
        return FirstToken(width, self.width, dropout)
