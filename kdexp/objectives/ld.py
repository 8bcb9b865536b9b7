"""LD counterpart: localisation distillation of positions or bins (after Zheng et al., CVPR 2022, arXiv 2102.12252)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kdexp.config.schema import Part, Temperature, Weight
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice, idle, wide

REDUCTIONS = ("mean_sides", "as_coded")


def ld(
    student_logits: Tensor,
    teacher_logits: Tensor,
    positions: Tensor | None = None,
    weights: Tensor | None = None,
    temperature: float = 10.0,
    times_T2: bool = True,
    reduction: str = "mean_sides",
) -> Tensor:
    """KL(teacher || student) of distributions over n positions for S sides, logits (B, S, n).

    Args:
        positions: (B, n), 0 = left out of both softmaxes; None = all take part.
        weights: (B,) factor of each example; None = 1.
        reduction: ``mean_sides`` = sum / (S*B); ``as_coded`` = sum / (S*n), as the box code divides.
    """
    choice("reduction", reduction, REDUCTIONS)
    s, t = wide(student_logits) / temperature, wide(teacher_logits.detach()) / temperature
    real = torch.ones_like(s, dtype=torch.bool) if positions is None else positions.bool()[:, None, :]
    low = torch.finfo(s.dtype).min
    log_q, log_p = (x.masked_fill(~real, low).log_softmax(-1) for x in (s, t))
    rows = torch.where(real, log_p.exp() * (log_p - log_q), 0.0).sum(-1)
    rows = rows if weights is None else rows * weights[:, None]
    sides = s.shape[1]
    value = rows.sum() / (sides * (s.shape[0] if reduction == "mean_sides" else s.shape[2]))
    return value * temperature**2 if times_T2 else value


def valuable_positions(teacher_logits: Tensor, attention_mask: Tensor, threshold: float = 0.1) -> Tensor:
    """(B, n) int64: real positions with at least ``threshold`` times the row's largest probability on some side.

    Args:
        teacher_logits: (B, S, n).
        attention_mask: (B, n), 1 = real.
    """
    real = attention_mask.bool()[:, None, :]
    p = wide(teacher_logits).masked_fill(~real, float("-inf")).softmax(-1)
    near = (p >= threshold * p.amax(-1, keepdim=True)) & real
    return near.any(1).long()


class LD(Objective):
    """T^2 * KL over all real positions + gamma * T^2 * KL over the valuable ones, mean over sides and examples.

    **A counterpart of localisation distillation**: a box's sides become the head's outputs (start and end of a span;
    bins of a score; on plain classes it is logit KD at a high temperature with the valuable term). Reduction: mean
    over sides and sentences. Mask: padding is no position. Power of T: 2. Units: sentences. Source: official code for
    boxes (T 10, its weight .25 belongs to another divisor); the text form is ours. Degenerate: one position gives 0;
    where the teacher is uniform all positions are valuable.

    Args:
        temperature: divides both sides' logits.
        gamma: weight of the valuable positions; 0 leaves them out.
        threshold: share of the largest teacher probability from which on a position is valuable.
        weighted: weigh each example by the student's largest probability, a constant, as coded for boxes.
        times_T2: multiply by T^2.
    """

    asks: ClassVar[tuple[str, ...]] = ("distributions",)

    def __init__(
        self,
        temperature: Temperature = 10.0,
        gamma: Weight = 0.25,
        threshold: Part = 0.1,
        weighted: bool = False,
        times_T2: bool = True,
    ) -> None:
        super().__init__()
        if gamma == 0:
            idle("ld.gamma=0", {"threshold": (threshold, 0.1)})
        self.temperature, self.gamma, self.threshold = temperature, gamma, threshold
        self.weighted, self.times_T2 = weighted, times_T2

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        ours, theirs = (torch.stack([x[name] for name in self.head.names], 1) for x in (student, teacher))
        over_positions = len(self.head.names) > 1 and batch.mask is not None
        real = batch.mask if over_positions else torch.ones_like(ours[:, 0], dtype=torch.long)
        assert real is not None
        weights = None
        if self.weighted:
            scores = wide(ours.detach()).masked_fill(~real.bool()[:, None, :], float("-inf"))
            weights = scores.softmax(-1).amax((1, 2))
        loss = ld(ours, theirs, real, weights, self.temperature, self.times_T2)
        if self.gamma == 0:
            return loss
        valuable = valuable_positions(theirs, real, self.threshold)
        return loss + self.gamma * ld(ours, theirs, valuable, weights, self.temperature, self.times_T2)
