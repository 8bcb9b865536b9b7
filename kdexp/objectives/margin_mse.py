"""Margin MSE: differences between the positive's score and the others' (Hofstätter et al. 2020, arXiv 2010.02666)."""

from __future__ import annotations

from torch import Tensor

from kdexp.objectives.base import Batch, Features
from kdexp.objectives.common import wide
from kdexp.objectives.scores import Scores


def margin_mse(student_scores: Tensor, teacher_scores: Tensor) -> Tensor:
    """Mean over B*(K-1) of ((s_0 - s_k) - (t_0 - t_k))^2, scores (B, K), column 0 the positive.

    Raises:
        ValueError: one candidate has no margin.
    """
    if student_scores.shape[-1] < 2:
        raise ValueError("margin_mse needs two candidates or more: one has no margin")
    gap = wide(student_scores) - wide(teacher_scores.detach())
    return (gap[:, :1] - gap[:, 1:]).square().mean()


class MarginMSE(Scores):
    """Mean squared difference of margins between the positive and every other candidate.

    Reduction: mean over queries and negatives. Mask: none. Power of T: none. Units: sentences. Source: official code of
    sentence-transformers; **on classes it is a counterpart**: the label's logit against each other class's. Degenerate:
    one candidate is refused; the teacher's scale is the loss's scale.
    """

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        return margin_mse(*self.scores(student, teacher, batch))
