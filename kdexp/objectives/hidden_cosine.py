"""Cosine of hidden states: DistilBERT's third term (Sanh et al. 2019, arXiv 1910.01108; official code)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.objectives.base import Batch, Features
from kdexp.objectives.common import OfTokens, alive, mask_for, over_layers, some, token_mean, wide
from kdexp.objectives.projections import Projected


def hidden_cosine(student: Tensor, teacher: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Mean over real tokens of 1 - cos of hidden states (B, L, D), cos = s.t / sqrt((|s|^2+1e-12)(|t|^2+1e-12)).

    Args:
        attention_mask: (B, L), 1 = real; None = all.
    """
    s, t = alive(wide(student)), wide(teacher.detach())
    norms = (s.square().sum(-1) + 1e-12) * (t.square().sum(-1) + 1e-12)
    return token_mean((1 - (s * t).sum(-1) / norms.sqrt())[..., None], attention_mask)


class HiddenCosine(OfTokens, Projected):
    """Sum over matched layers (the last by default) of the mean over real tokens of 1 - cos(W h_student, h_teacher).

    Reduction: mean over real tokens. Mask: padding is left out. Power of T: none. Units: real tokens. Source:
    official code (last hidden states, equal widths, no projection). Degenerate: a zero vector costs 1 and gets no
    gradient. Settings as in :class:`Projected`.
    """

    layers: ClassVar[str] = "hidden"
    default_mapping: ClassVar[str] = "last_only"

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all matched layers."""
        assert teacher is not None
        ours, theirs = self.matched(student, teacher)
        losses = [hidden_cosine(s, t, mask_for(batch, s)) for s, t in zip(ours, theirs, strict=True)]
        self.note(losses)
        return over_layers(losses, self.layer_reduce, some(student))
