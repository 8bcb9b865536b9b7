"""RM counterpart: rank mimicking (after Li et al., AAAI 2022, arXiv 2112.04840; third-party drafts)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.config.schema import Temperature
from kdexp.heads.classification import LABEL
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice, wide

VARIANTS = ("aligned", "sorted")
GROUPS = ("label", "all")
SCORES = ("probability", "logit")


def rank_mimic(
    student_scores: Tensor,
    teacher_scores: Tensor,
    candidates: Tensor | None = None,
    temperature: float = 1.0,
    variant: str = "aligned",
) -> Tensor:
    """Mean over groups of KL(softmax(teacher/T) || softmax(student/T)) over a group's candidates, scores (G, N).

    Args:
        candidates: (G, N), 1 = belongs; groups of fewer than 2 are left out (none left: 0). None = all.
        variant: ``sorted`` sorts each side on its own first, as a draft does: a permuted student then costs nothing.
    """
    choice("variant", variant, VARIANTS)
    s, t = wide(student_scores) / temperature, wide(teacher_scores.detach()) / temperature
    real = torch.ones_like(s, dtype=torch.bool) if candidates is None else candidates.bool()
    low = torch.finfo(s.dtype).min
    s, t = s.masked_fill(~real, low), t.masked_fill(~real, low)
    if variant == "sorted":
        s, t = (x.sort(-1, descending=True).values for x in (s, t))
        real = real.long().sort(-1, descending=True).values.bool()
    log_q, log_p = s.log_softmax(-1), t.log_softmax(-1)
    groups = torch.where(real, log_p.exp() * (log_p - log_q), 0.0).sum(-1)
    several = real.sum(-1) > 1
    return torch.where(several, groups, 0.0).sum() / several.sum().clamp(min=1)


def rank_mimic_batch(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    groups: str = "label",
    scores: str = "probability",
    temperature: float = 1.0,
    variant: str = "aligned",
) -> Tensor:
    """:func:`rank_mimic` over the sentences of a batch, logits (B, C): each class ranks sentences by its score.

    Args:
        labels: (B,), needed by groups ``label``.
        groups: ``label`` = class c ranks the sentences labelled c; ``all`` = every class ranks all sentences.
        scores: ``probability`` (softmax over classes) or ``logit``.
    """
    choice("groups", groups, GROUPS)
    choice("scores", scores, SCORES)
    sides = [wide(student_logits), wide(teacher_logits.detach())]
    if scores == "probability":
        sides = [x.softmax(-1) for x in sides]
    candidates = None
    if groups == "label":
        assert labels is not None
        candidates = F.one_hot(labels.long(), sides[0].shape[-1]).T
    return rank_mimic(sides[0].T, sides[1].T, candidates, temperature, variant)


class RankMimic(Objective):
    """KL between the sides' distributions over the sentences of a batch, by one class's score at a time.

    **A counterpart of rank mimicking**: sentences take the place of an object's anchors. It says nothing about the
    absolute level of a score: put ``kd`` beside it. Reduction: mean over groups. Mask: none needed. Power of T: none.
    Units: none, it depends on the batch (32 sentences or more, or groups are empty). Source: abstract and third-party
    drafts; those sort teacher and student apart, which is not done here (``variant: sorted`` would). Degenerate:
    groups of one sentence are left out, none left: 0. Probabilities make flat softmaxes at T 1: take .1 to .5, or
    logits.

    Args:
        groups: ``label`` or ``all``.
        scores: ``probability`` or ``logit``.
        temperature: divides the scores.
        variant: ``aligned``, or ``sorted`` as in the draft.
    """

    asks: ClassVar[tuple[str, ...]] = ("classes", "examples")
    batchwise = True

    def __init__(
        self,
        groups: str = "label",
        scores: str = "probability",
        temperature: Temperature = 0.5,
        variant: str = "aligned",
    ) -> None:
        super().__init__()
        choice("rank_mimic.groups", groups, GROUPS)
        choice("rank_mimic.scores", scores, SCORES)
        choice("rank_mimic.variant", variant, VARIANTS)
        self.groups, self.scores, self.temperature, self.variant = groups, scores, temperature, variant

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        sides, labels = (student["logits"], teacher["logits"]), batch.labels[LABEL]
        return rank_mimic_batch(*sides, labels, self.groups, self.scores, self.temperature, self.variant)
