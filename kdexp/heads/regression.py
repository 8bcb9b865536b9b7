"""One score an example."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from kdexp.heads.base import Head
from kdexp.heads.batch import Batch, Features, Predictions, Targets
from kdexp.heads.classification import LABEL
from kdexp.heads.common import FirstToken, wide


def score_mse(scores: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error of scores, each (B,) or (B, 1), over the batch; never a B x B broadcast.

    Raises:
        ValueError: if either side has more than one value a sentence.
    """
    flat = [x.squeeze(-1) if x.dim() == 2 else x for x in (wide(scores), wide(target))]
    if flat[0].dim() != 1 or flat[0].shape != flat[1].shape:
        raise ValueError(
            f"a regression task compares one score a sentence; got shapes {tuple(scores.shape)} and "
            f"{tuple(target.shape)}. Give the student one output, or call the task a classification"
        )
    return F.mse_loss(flat[0], flat[1].to(flat[0].dtype), reduction=reduction)


class Regression(Head):
    """A score of an example, as logits (B, 1)."""

    name: ClassVar[str] = "regression"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    abilities: ClassVar[frozenset[str]] = frozenset({"examples", "small"})
    unused: ClassVar[frozenset[str]] = frozenset({"temperature", "form", "times_T2"})

    @property
    def width(self) -> int:
        """One number."""
        return 1

    def model_config(self) -> dict[str, Any]:
        """Return one output; problem_type is set so that no step recompiles."""
        return {"num_labels": 1, "problem_type": "regression", "id2label": {0: "score"}, "label2id": {"score": 0}}

    def loss(self, outputs: Features, batch: Batch, reduction: str = "mean") -> Tensor:
        """Return the squared error: :func:`score_mse`."""
        return score_mse(outputs["logits"], batch.labels[LABEL], reduction)

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
        """Return the squared distance from the teacher's score (``sum``, or the mean).

        Temperature, form and T^2 have no meaning for a score and are not used.
        """
        return score_mse(student["logits"], teacher["logits"].detach(), "sum" if reduction == "sum" else "mean")

    def decided(self, outputs: Features, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`Head.decided`: the score."""
        return {LABEL: wide(outputs["logits"])[:, 0].float()}

    def trivial(self, train: Targets, like: Targets) -> Predictions:
        """Return the mean of train's scores for everything."""
        return {"logits": np.full((len(like[LABEL]), 1), np.mean(train[LABEL]), dtype=np.float32)}

    def small(self, width: int, dropout: float) -> FirstToken:
        """Make a pooler on the first token with a linear map to the score."""
        return FirstToken(width, 1, dropout)
