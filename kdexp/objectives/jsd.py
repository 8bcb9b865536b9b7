"""Generalised Jensen-Shannon divergence (GKD, arXiv 2306.13649, as toolkits compute it)."""

from __future__ import annotations

import math

from torch import Tensor

from kdexp.config.schema import Part, Temperature
from kdexp.heads.classification import log_probabilities, reduced
from kdexp.objectives.divergence import Divergence


def jsd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    beta: float = 0.5,
    temperature: float = 1.0,
    times_T2: bool = False,
    reduction: str = "batchmean",
    scaled: bool = False,
) -> Tensor:
    """beta * KL(p || m) + (1-beta) * KL(q || m) with m = beta * p + (1-beta) * q, p the teacher's softmax at T.

    Args:
        beta: 0 gives KL(p || q), 1 gives KL(q || p).
        scaled: divide by beta * (1-beta) between the ends, without which the family jumps there.
    """
    log_q, log_p = log_probabilities(student_logits, teacher_logits.detach(), temperature)
    if beta in (0, 1):
        first, second = (log_p, log_q) if beta == 0 else (log_q, log_p)
        loss = reduced(first.exp() * (first - second), reduction)
    else:
        log_m = (log_p + math.log(beta)).logaddexp(log_q + math.log(1 - beta))
        values = beta * log_p.exp() * (log_p - log_m) + (1 - beta) * log_q.exp() * (log_q - log_m)
        loss = reduced(values, reduction) / (beta * (1 - beta) if scaled else 1.0)
    return loss * temperature**2 if times_T2 else loss


class JSD(Divergence):
    """Jensen-Shannon divergence between teacher and student.

    Reduction: sum / sentences by default. Mask: none needed. Power of T: 0 (TRL) by default, 2 with ``times_T2``
    (DistillKit). Units: sentences. Source: official code of toolkits. Degenerate: none; unscaled it is bounded by the
    entropy of (beta, 1-beta), log 2 at 1/2. Settings as in :class:`Divergence`, and

    Args:
        beta: share of the teacher in the mixture.
        scaled: divide by beta * (1-beta), which makes the family continuous (ours).
    """

    def __init__(
        self,
        beta: Part = 0.5,
        scaled: bool = False,
        temperature: Temperature = 1.0,
        reduction: str = "batchmean",
        times_T2: bool = False,
    ) -> None:
        super().__init__(temperature, reduction, times_T2)
        self.beta, self.scaled = beta, scaled

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """:func:`jsd`."""
        return jsd(student, teacher, self.beta, self.temperature, self.times_T2, self.reduction, self.scaled)
