"""A score as a distribution over bins 0, 1, ..., n-1 (the head of generalised focal loss, for texts; ours)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from kdexp.heads.base import Head, numbered
from kdexp.heads.batch import Batch, Features, Predictions, Targets
from kdexp.heads.classification import LABEL, soft_labels
from kdexp.heads.common import FirstToken, wide


def dfl(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Distribution focal loss of logits (N, n): -[(1-w) log p_i + w log p_(i+1)], i = floor(y) <= n-2, w = y - i."""
    logs = wide(logits).log_softmax(-1)
    y = targets.to(logs.dtype).reshape(-1)
    low = y.floor().clamp(0, logs.shape[-1] - 2)
    share, i = y - low, low.long()[:, None]
    rows = -((1 - share) * logs.gather(1, i)[:, 0] + share * logs.gather(1, i + 1)[:, 0])
    return rows.sum() if reduction == "sum" else rows.mean()


def expected_bin(logits: Tensor) -> Tensor:
    """sum_i i * softmax(logits)_i of each row, (N, n) to (N,)."""
    p = wide(logits).softmax(-1)
    return (p * p.new_tensor(range(p.shape[-1]))).sum(-1)


class Bins(Head):
    """A score between 0 and n-1 as logits over n bins, (B, n); the answer is the expected bin.

    Args:
        bins: n, at least 2; labels above n-1 or below 0 cannot be told.
    """

    name: ClassVar[str] = "bins"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    abilities: ClassVar[frozenset[str]] = frozenset({"distributions", "examples", "small"})

    def __init__(self, bins: int) -> None:
        if bins < 2:
            raise ValueError(f"a score needs two bins or more; got {bins}")
        self.bins = bins

    @property
    def width(self) -> int:
        """n."""
        return self.bins

    def model_config(self) -> dict[str, Any]:
        """Return n outputs, named by their bins; problem_type is set so that no step recompiles."""
        named = numbered([f"bin {i}" for i in range(self.bins)])
        return {"num_labels": self.bins, "problem_type": "single_label_classification", **named}

    def loss(self, outputs: Features, batch: Batch, reduction: str = "mean") -> Tensor:
        """Return the :func:`dfl`."""
        return dfl(outputs["logits"], batch.labels[LABEL], reduction)

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
        """Return the divergence from the teacher's distribution over bins."""
        return soft_labels(student["logits"], teacher["logits"], temperature, form, reduction, times_T2)

    def predictions(self, outputs: Features, batch: Batch) -> dict[str, Tensor]:
        """Return the expected bin of each example as ``logits`` (B, 1), as a regression has it."""
        return {"logits": expected_bin(outputs["logits"])[:, None].float()}

    def decided(self, outputs: Features, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`Head.decided`: the expected bin."""
        return {LABEL: expected_bin(outputs["logits"]).float()}

    def trivial(self, train: Targets, like: Targets) -> Predictions:
        """Return the mean of train's scores for everything."""
        return {"logits": np.full((len(like[LABEL]), 1), np.mean(train[LABEL]), dtype=np.float32)}

    def small(self, width: int, dropout: float) -> FirstToken:
        """Make a pooler on the first token with a linear map to the bins."""
        return FirstToken(width, self.bins, dropout)
