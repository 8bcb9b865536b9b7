"""Logistic ranking: candidates in the teacher's order (as in DistillKit)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdexp.objectives.base import Batch, Features
from kdexp.objectives.common import wide
from kdexp.objectives.scores import Scores


def logistic_ranking(student_scores: Tensor, teacher_scores: Tensor) -> Tensor:
    """Mean over all pairs (i, j) of a row that the teacher orders, t_i > t_j, of log(1 + exp(-(s_i - s_j)))."""
    s, t = wide(student_scores), wide(teacher_scores.detach())
    ordered = (t[:, :, None] > t[:, None, :]).to(s.dtype)
    values = F.softplus(s[:, None, :] - s[:, :, None])
    return (values * ordered).sum() / ordered.sum().clamp(min=1)


class LogisticRanking(Scores):
    """Mean over the pairs that the teacher orders of log(1 + exp(-(student's margin))).

    Reduction: mean over the batch's ordered pairs. Mask: none. Power of T: none. Units: sentences, which have as many
    pairs each but for exact ties. Source: official code of DistillKit; **on classes it is a counterpart**. Degenerate:
    no ordered pair gives 0; the loss never reaches 0, it only widens margins.
    """

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        return logistic_ranking(*self.scores(student, teacher, batch))
