"""KL between distributions over candidates, with a temperature a side (as in sentence-transformers)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdexp.config.schema import Temperature
from kdexp.objectives.base import Batch, Features
from kdexp.objectives.common import wide
from kdexp.objectives.scores import Scores


def score_kl(
    student_scores: Tensor,
    teacher_scores: Tensor,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    times_T2: bool = True,
    candidates: Tensor | None = None,
) -> Tensor:
    """Mean over B of KL(softmax(teacher/T_t) || softmax(student/T_s)) over candidates, scores (B, K).

    Args:
        times_T2: multiply by the *student's* squared temperature.
        candidates: (B, K), 1 = belongs; a row with fewer than 2 adds 0 and counts in B. None = all.
    """
    q, p = wide(student_scores) / student_temperature, wide(teacher_scores.detach()) / teacher_temperature
    real = torch.ones_like(q, dtype=torch.bool) if candidates is None else candidates.bool()
    several = real.sum(-1, keepdim=True) > 1
    low = torch.finfo(q.dtype).min
    log_q, log_p = (x.masked_fill(~real, low).log_softmax(-1) for x in (q, p))
    value = torch.where(real & several, log_p.exp() * (log_p - log_q), 0.0).sum(-1).mean()
    return value * student_temperature**2 if times_T2 else value


class ScoreKL(Scores):
    """T_s^2 * mean over queries of KL(softmax(t/T_t) || softmax(s/T_s)) over candidates.

    Reduction: mean over queries. Mask: candidates that do not belong are left out. Power of T: 2, the student's.
    Units: sentences. Source: official code of sentence-transformers (queries with texts); **on classes it is a
    counterpart**: KD whose sides have temperatures of their own. Degenerate: a query with one candidate adds 0; below
    T = 1 two sharp sides can agree to a gradient of exactly 0.

    Args:
        student_temperature, teacher_temperature: divide the scores of their side.
        times_T2: multiply by the student's squared temperature.
    """

    def __init__(
        self,
        student_temperature: Temperature = 1.0,
        teacher_temperature: Temperature = 2.0,
        times_T2: bool = True,
    ) -> None:
        super().__init__()
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.times_T2 = times_T2

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        sides = self.scores(student, teacher, batch)
        return score_kl(*sides, self.student_temperature, self.teacher_temperature, self.times_T2)
