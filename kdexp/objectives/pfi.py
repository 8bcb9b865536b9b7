"""PFI counterpart: prediction-guided feature imitation (after Li et al., AAAI 2022, arXiv 2112.04840; drafts)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.objectives.base import Batch, Features
from kdexp.objectives.common import choice, mask_for, over_layers, some, wide
from kdexp.objectives.projections import Projected

SCORES = ("probability", "logit")


def pfi(
    student: Tensor,
    teacher: Tensor,
    attention_mask: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    scores: str = "probability",
    detach_weight: bool = False,
) -> Tensor:
    """Feature error weighed by prediction error: mean of P * F.

    F = mean over D of the squared difference of hidden states (B, L, D), P = mean over C of that of predictions.
    Sentence predictions (B, C): mean over B of P_b * (mean of F over its real tokens); token predictions (B, L, C):
    mean over real tokens of P * F. Where the texts are the answers of questions, predictions (B/K, K) have one number a
    text, which is its P.

    Args:
        scores: predictions are ``logit`` or ``probability`` (softmax).
        detach_weight: no gradient through P.
    """
    choice("scores", scores, SCORES)
    ours, theirs = wide(student_logits), wide(teacher_logits.detach())
    if scores == "probability":
        ours, theirs = ours.softmax(-1), theirs.softmax(-1)
    weight = (ours - theirs).square()
    weight = weight.mean(-1) if len(weight) == len(student) else weight.flatten()
    weight = weight.detach() if detach_weight else weight
    error = (wide(student) - wide(teacher.detach())).square().mean(-1)
    mask = attention_mask.to(error.dtype)
    if weight.dim() == 2:
        return (weight * error * mask).sum() / mask.sum().clamp(min=1)
    return (weight * (error * mask).sum(-1) / mask.sum(-1).clamp(min=1)).mean()


class PFI(Projected):
    """Hidden-state error that counts where the predictions differ, summed over matched layers; the last one by default.

    **A counterpart of prediction-guided feature imitation**: one prediction a sentence (or a token) instead of a
    position of a feature map. Reduction: mean over sentences of the mean over real tokens. Mask: padding is left out.
    Power of T: none. Units: sentences. Source: third-party drafts, weight 1.5; the gradient also lowers P, as in
    them. Degenerate: where predictions agree it is 0, so it fades by itself. Settings as in :class:`Projected`, and

    Args:
        scores: ``probability`` or ``logit``.
        detach_weight: no gradient through the predictions.
    """

    answers: ClassVar[bool] = True
    layers: ClassVar[str] = "hidden"
    default_mapping: ClassVar[str] = "last_only"
    asks: ClassVar[tuple[str, ...]] = ("examples",)

    def __init__(
        self,
        scores: str = "logit",
        detach_weight: bool = False,
        projection: str = "auto",
        share_projection: bool = False,
        layer_reduce: str = "sum",
    ) -> None:
        super().__init__(projection, share_projection, layer_reduce)
        choice("pfi.scores", scores, SCORES)
        self.scores, self.detach_weight = scores, detach_weight

    def reads(self) -> str:
        """No padding."""
        return "real"

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all matched layers."""
        assert teacher is not None
        said = student["logits"], teacher["logits"]
        ours, theirs = self.matched(student, teacher)
        losses = [
            pfi(s, t, mask_for(batch, s), *said, self.scores, self.detach_weight)
            for s, t in zip(ours, theirs, strict=True)
        ]
        self.note(losses)
        return over_layers(losses, self.layer_reduce, some(student))
