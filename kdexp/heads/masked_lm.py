"""The hidden tokens of a text: a distribution over the vocabulary at each place where something is hidden.

Legend: B sequences, L positions, M places a sequence, V entries of the vocabulary, D width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from kdexp.heads.base import REDUCTIONS, Head
from kdexp.heads.batch import Batch, Features, Predictions, Targets
from kdexp.heads.classification import divergences
from kdexp.heads.common import choice, wide
from kdexp.heads.hidden_tokens import COUNTS, NOTHING, PLACES, TOKENS


class MaskedLM(Head):
    """Logits (B, M, V) at the places where something is hidden, and nowhere else.

    The model's own language head is run on the last hidden states of these places alone
    (:mod:`kdexp.models.places`), which gives the numbers that running it everywhere gives.
    """

    name: ClassVar[str] = "masked_lm"
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    abilities: ClassVar[frozenset[str]] = frozenset({"classes"})

    def model_config(self) -> dict[str, Any]:
        """Return nothing: the vocabulary is the architecture's."""
        return {}

    def places(self, batch: Batch) -> Tensor:
        """Return the positions (B, M) at which something is hidden."""
        return batch.labels[PLACES]

    def units(self, batch: Batch) -> Tensor:
        """Return the number of hidden tokens, a scalar tensor."""
        return (batch.labels[TOKENS] != NOTHING).sum()

    def _weights(self, batch: Batch) -> Tensor:
        return (batch.labels[TOKENS] != NOTHING).float()

    def _reduced(self, values_BM: Tensor, batch: Batch, reduction: str, width: int = 1) -> Tensor:
        """Return values at hidden tokens as a scalar; of a batch without any, 0."""
        choice("reduction", reduction, REDUCTIONS)
        total = (values_BM * self._weights(batch)).sum()
        if reduction == "sum":
            return total
        return total / self.units(batch).clamp(min=1) / (width if reduction == "mean" else 1)

    def _losses(self, outputs: Features, batch: Batch) -> Tensor:
        """Return the cross entropy at each place (B, M), 0 where nothing is hidden."""
        logits = wide(outputs["logits"])
        flat = F.cross_entropy(
            logits.flatten(0, 1), batch.labels[TOKENS].flatten(), reduction="none", ignore_index=NOTHING
        )
        return flat.view(logits.shape[:2])

    def loss(self, outputs: Features, batch: Batch, reduction: str = "mean") -> Tensor:
        """Return the cross entropy with the hidden tokens."""
        return self._reduced(self._losses(outputs, batch), batch, "sum" if reduction == "sum" else "batchmean")

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
        """Return the divergence from the teacher's distributions at hidden tokens."""
        values = divergences(student["logits"], teacher["logits"], temperature, form)
        loss = self._reduced(values, batch, reduction, student["logits"].shape[-1])
        return loss * temperature**2 if times_T2 else loss

    def squared_error(self, student: Features, teacher: Features, batch: Batch, factor: float | Tensor = 1.0) -> Tensor:
        """Return the mean over hidden tokens and the vocabulary of (student - factor * teacher)^2."""
        gaps = wide(student["logits"]) - factor * wide(teacher["logits"].detach())
        return self._reduced(gaps.square().mean(-1), batch, "batchmean")

    def predictions(self, outputs: Features, batch: Batch) -> dict[str, Tensor]:
        """Return the most probable ``token`` and the ``loss`` at each place, both (B, M)."""
        return {"token": outputs["logits"].argmax(-1).int(), "loss": self._losses(outputs, batch).float()}

    def trivial(self, train: Targets, like: Targets) -> Predictions:
        """Return how often each token stands in train, whatever the text: the commonest one, and its odds."""
        odds = np.log((train[COUNTS] + 1.0) / (train[COUNTS] + 1.0).sum())
        hidden = np.asarray(like[TOKENS])
        loss = np.where(hidden == NOTHING, 0.0, -odds[np.maximum(hidden, 0)]).astype(np.float32)
        return {"token": np.full(hidden.shape, int(odds.argmax()), dtype=np.int32), "loss": loss}
