"""DKD: decoupled knowledge distillation (Zhao et al., CVPR 2022, arXiv 2203.08679; official code)."""

from __future__ import annotations

import logging
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.config.schema import NotNegative, Temperature, Weight
from kdexp.heads.base import Head
from kdexp.heads.classification import LABEL, log_probabilities
from kdexp.objectives.base import Batch, Context, Features, Objective
from kdexp.objectives.common import choice
from kdexp.objectives.review import reviewkd_warmup
from kdexp.objectives.standard_kl import standardize_logits

log = logging.getLogger(__name__)

PARTS = ("total", "target", "other", "coupled")


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    part: str = "total",
    times_T2: bool = True,
    standardize: bool = False,
) -> Tensor:
    """Decoupled KL of logits (B, C), mean over sentences.

    Args:
        labels: (B,) the target class y of each sentence.
        alpha, beta: weights of ``target`` and ``other`` in ``total``.
        part: ``target`` = KL of the two-way distributions [p_y, 1 - p_y]; ``other`` = KL of the softmax over the other
            classes; ``coupled`` = target + (1 - p_y) * other, which is the plain KL; ``total``.
        standardize: both sides through :func:`standardize_logits` first.
    """
    choice("part", part, PARTS)
    ours, theirs = student_logits, teacher_logits.detach()
    if standardize:
        ours, theirs = standardize_logits(ours), standardize_logits(theirs)
    log_q, log_p = log_probabilities(ours, theirs, temperature)
    hot = F.one_hot(labels.long(), log_q.shape[-1]).bool()
    (target_q, rest_q, other_q), (target_p, rest_p, other_p) = (_split(x, hot) for x in (log_q, log_p))
    target = target_p.exp() * (target_p - target_q) + rest_p.exp() * (rest_p - rest_q)
    other = (other_p.exp().masked_fill(hot, 0.0) * (other_p - other_q)).sum(-1)
    value = {
        "target": target,
        "other": other,
        "coupled": target + rest_p.exp() * other,
        "total": alpha * target + beta * other,
    }[part].mean()
    return value * temperature**2 if times_T2 else value


def _split(logs: Tensor, hot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log probabilities (B, C) of the target (B,), of all others together (B,), within the others (0 at the target).

    By log-sum-exp over the others: log(1 - q_y) would be -inf for a sure student.
    """
    rest = logs.masked_fill(hot, float("-inf")).logsumexp(-1)
    return logs.masked_fill(~hot, 0.0).sum(-1), rest, (logs - rest[:, None]).masked_fill(hot, 0.0)


class DKD(Objective):
    """warm-up * T^2 * mean over sentences of (alpha * target + beta * other), the two parts of KL(teacher || student).

    KL = target + (1 - p_y) * other: DKD frees the second part from the teacher's doubt. Reduction: mean over sentences.
    Mask: none needed. Power of T: 2. Units: sentences. Source: official code (alpha 1, beta 8, T 4 for CIFAR-100; hard
    labels beside it with weight 1; warm-up 20 of 240 epochs, counted from 1). Degenerate: on two classes ``other`` is 0
    and beta does nothing (a warning says so): what is left is alpha times the plain KL. Sure students stay finite.

    Args:
        alpha, beta: weights of the two parts.
        temperature: divides both sides' logits.
        target: ``label``, or ``teacher`` (its most probable class; for data whose labels shall not be used).
        standardize: z-score both sides' logits first (then alpha and beta are multiplied by 9 in that release).
        warmup_epochs: epochs until full weight; null = 1/12 of the phase.
    """

    asks: ClassVar[tuple[str, ...]] = ("classes", "examples")

    weight: Tensor

    def __init__(
        self,
        alpha: Weight = 1.0,
        beta: Weight = 8.0,
        temperature: Temperature = 4.0,
        target: str = "label",
        standardize: bool = False,
        warmup_epochs: NotNegative | None = None,
    ) -> None:
        super().__init__()
        choice("dkd.target", target, ("label", "teacher"))
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.target, self.standardize, self.warmup_epochs = target, standardize, warmup_epochs
        self.register_buffer("weight", torch.tensor(1.0))

    def suits(self, head: Head) -> None:
        """Refuse two classes where only ``other``, or z-scores, would be left."""
        if head.width == 2 and (self.alpha == 0 or self.standardize):
            raise ValueError(
                "dkd has nothing to learn from 2 classes with alpha=0 or standardize=true: the part among the other "
                "classes is 0, and z-scores of two logits are constant. Set alpha above 0 and standardize=false"
            )

    def setup(self, context: Context) -> None:
        super().setup(context)
        if context.head.width == 2:
            log.warning("dkd: of 2 classes the part among the other classes is 0, so beta=%g does nothing", self.beta)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the warm-up weight."""
        length = max(epochs / 12, 1.0) if self.warmup_epochs is None else self.warmup_epochs
        self.weight.fill_(reviewkd_warmup([epoch + 1], max(length, 1e-9))[0])

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        ours, theirs = student["logits"], teacher["logits"]
        labels = batch.labels[LABEL] if self.target == "label" else theirs.argmax(-1)
        settings = {"temperature": self.temperature, "standardize": self.standardize}
        return self.weight * dkd(ours, theirs, labels, self.alpha, self.beta, **settings)  # type: ignore[arg-type]
