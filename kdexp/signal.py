"""The teacher as the loop sees it: a function from a batch to features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdexp import features
from kdexp.objectives.base import Features


class Live:
    """A teacher that is run on every batch, frozen and without dropout.

    Args:
        model: the teacher; it is frozen here.
        want: names of the features to hand out beside logits.
        cast: dtype of autocast, or None for full precision.
        evaluation: False keeps its dropout on, as released code of How to Distill your BERT does (card, A2).
    """

    def __init__(self, model: nn.Module, want: frozenset[str], cast: torch.dtype | None, evaluation: bool = True):
        self.model = model.requires_grad_(False).train(not evaluation)
        self.want, self.cast = want, cast
        self.run = features.forward

    @torch.no_grad()
    def __call__(self, batch: dict[str, Tensor]) -> Features:
        """Return the teacher's features for a batch; no gradient reaches it."""
        device = batch["input_ids"].device.type
        with torch.autocast(device, dtype=self.cast, enabled=self.cast is not None):
            return self.run(self.model, batch, self.want)
