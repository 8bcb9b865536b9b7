"""A class for every word of a text, asked at its pieces.

Legend: B windows, L padded length, C tags.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.heads.base import REDUCTIONS, Labelled
from kdexp.heads.batch import Batch, Features, Predictions, Targets
from kdexp.heads.classification import divergences
from kdexp.heads.common import choice, wide

TAGS = "tags"
"""Name of the labels: (B, L) int64 tags, anything where nothing is asked."""
ASKED = "asked"
"""Name of the mask (B, L) of positions that answers are asked at: pieces of words, never special tokens or padding."""


class Tokens(Labelled):
    """Logits (B, L, C), of which those at asked positions count, in every loss.

    Args:
        label_names: the tags in the order of their ids.
    """

    name: ClassVar[str] = "tokens"
    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    abilities: ClassVar[frozenset[str]] = frozenset({"classes", "positions", "small"})

    def loss(self, outputs: Features, batch: Batch, reduction: str = "mean") -> Tensor:
        """Return the cross entropy over asked positions."""
        choice("reduction", reduction, ("mean", "sum"))
        tags = batch.labels[TAGS].masked_fill(~batch.labels[ASKED], 0)
        values = F.cross_entropy(wide(outputs["logits"]).transpose(1, 2), tags, reduction="none")
        return self._over(values, batch, reduction)

    def soft_loss(
        self,
        student: Features,
        teacher: Features,
        batch: Batch,
        temperature: float = 1.0,
        form: str = "kl",
        reduction: str = "batchmean",
        times_T2: bool = True,
    ) -> Tensor:
        """Return the divergence from the teacher's distribution over tags, over asked positions."""
        choice("reduction", reduction, REDUCTIONS)
        values = divergences(student["logits"], teacher["logits"], temperature, form)
        loss = self._over(values, batch, reduction)
        loss = loss / self.width if reduction == "mean" else loss
        return loss * temperature**2 if times_T2 else loss

    def squared_error(self, student: Features, teacher: Features, batch: Batch, factor: float | Tensor = 1.0) -> Tensor:
        """Return the mean of (student - factor * teacher)^2 over tags and asked positions."""
        gap = wide(student["logits"]) - factor * wide(teacher["logits"].detach())
        return self._over(gap.square().mean(-1), batch, "mean")

    def _over(self, values: Tensor, batch: Batch, reduction: str) -> Tensor:
        """Sum values (B, L) over asked positions; divide by their number unless ``sum`` is asked."""
        total = (values * batch.labels[ASKED]).sum()
        return total if reduction == "sum" else total / self.units(batch)

    def units(self, batch: Batch) -> Tensor:
        """Return how many positions are asked, at least 1."""
        return batch.labels[ASKED].sum().clamp(min=1)

    def predictions(self, outputs: Features, batch: Batch) -> dict[str, Tensor]:
        """Return the most probable tag at every position, (B, L)."""
        return {TAGS: outputs["logits"].argmax(-1).short()}

    def trivial(self, train: Targets, like: Targets) -> Predictions:
        """Return the most frequent tag of train's words for every word."""
        counts = np.bincount(np.concatenate(train[TAGS]), minlength=self.width)
        return {TAGS: [np.full(len(tags), counts.argmax(), np.int16) for tags in like[TAGS]]}

    def small(self, width: int, dropout: float) -> nn.Module:
        """Make dropout and a linear map to the tags of every position."""
        return EveryPosition(width, self.width, dropout)


class EveryPosition(nn.Sequential):
    """Dropout and a linear map at every position.

    Args:
        width: of the hidden states.
        out: numbers a position.
        dropout: before the map.
    """

    def __init__(self, width: int, out: int, dropout: float) -> None:
        super().__init__(nn.Dropout(dropout), nn.Linear(width, out))

    def forward(self, hidden_BLD: Tensor) -> dict[str, Tensor]:
        """Return ``logits`` (B, L, out) of hidden states (B, L, width)."""
        return {"logits": super().forward(hidden_BLD)}
