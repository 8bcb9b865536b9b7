"""Squared error of hidden states in a band of frequencies along the sentence (IKD counterpart, feature part; ours)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from kdexp.config.schema import Part
from kdexp.objectives.base import Batch, Features
from kdexp.objectives.common import OfTokens, choice, exact, mask_for, over_layers, some, wide
from kdexp.objectives.projections import Projected

BANDS = ("low", "high")


def band_mse(student: Tensor, teacher: Tensor, attention_mask: Tensor, keep: float = 0.5, band: str = "low") -> Tensor:
    """Squared error of hidden states (B, L, D) that lies in a band of each sentence's Fourier frequencies.

    Of a sentence of n real tokens (at its front) frequency f is low where min(f, n-f) <= floor(keep * n / 2). Sum over
    sentences / (real tokens * D): low and high together are the mean squared error.
    """
    choice("band", band, BANDS)
    gap = wide(student) - wide(teacher.detach())
    mask = attention_mask.to(gap.dtype)
    n = mask.sum(-1)
    gap = gap * mask[..., None]
    steps = torch.arange(gap.shape[1], device=gap.device, dtype=gap.dtype)
    f, at = steps[None, :, None], steps[None, None, :]
    angle = 2 * math.pi * torch.remainder(f * at, n[:, None, None].clamp(min=1)) / n[:, None, None].clamp(min=1)
    energy = ((angle.cos() @ gap).square() + (angle.sin() @ gap).square()).sum(-1)  # (B, f), by Parseval n times it
    low = torch.minimum(steps, n[:, None] - steps) <= (keep * n / 2).floor()[:, None]
    wanted = (low if band == "low" else ~low) & (steps < n[:, None])
    return (torch.where(wanted, energy, 0.0).sum(-1) / n.clamp(min=1)).sum() / (mask.sum() * gap.shape[-1])


class BandMSE(OfTokens, Projected):
    """Sum over matched layers (the last by default) of the squared error in a band of frequencies along the sentence.

    The feature part of the **IKD counterpart** (ours): the low band is what changes slowly along the sentence.
    Reduction: mean over real tokens times width. Mask: padding is left out; real tokens stand at the front. Power of
    T: none. Units: real tokens. Source: ours. Degenerate: a sentence of one token is all low band; keep 1 and ``low``
    is ``hid_seq``. Settings as in :class:`Projected`, and

    Args:
        keep: share of the frequencies that are low.
        band: ``low`` or ``high``.
    """

    layers: ClassVar[str] = "hidden"
    default_mapping: ClassVar[str] = "last_only"

    def __init__(
        self,
        keep: Part = 0.5,
        band: str = "low",
        projection: str = "auto",
        share_projection: bool = False,
        layer_reduce: str = "sum",
    ) -> None:
        super().__init__(projection, share_projection, layer_reduce)
        choice("band_mse.band", band, BANDS)
        self.keep, self.band = keep, band

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all matched layers."""
        assert teacher is not None
        ours, theirs = self.matched(student, teacher)
        with exact(some(student)):
            losses = [
                band_mse(s, t, mask_for(batch, s), self.keep, self.band) for s, t in zip(ours, theirs, strict=True)
            ]
        self.note(losses)
        return over_layers(losses, self.layer_reduce, some(student))
