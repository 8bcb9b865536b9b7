"""Several labels an example, each there or not.

Legend: B examples, C labels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from kdexp.heads.base import FORMS, REDUCTIONS, Labelled
from kdexp.heads.batch import Batch, Features, Predictions, Targets
from kdexp.heads.classification import LABEL
from kdexp.heads.common import FirstToken, choice, wide


def sigmoid_kl(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    form: str = "kl",
    reduction: str = "batchmean",
    times_T2: bool = True,
) -> Tensor:
    """Divergence of the student's from the teacher's probability of every label, each a distribution over yes and no.

    Of logits (B, C), p = sigmoid(teacher/T), q = sigmoid(student/T): p log(p/q) + (1-p) log((1-p)/(1-q)). A softmax
    over the labels would make them compete, which they do not.

    Args:
        form: ``kl``, or ``soft_ce``: without p log p + (1-p) log(1-p) (same gradient).
        reduction: ``batchmean`` = over examples and labels, which are the decisions; ``mean`` = over both outcomes of
            each too; ``sum``.
    """
    choice("form", form, FORMS)
    choice("reduction", reduction, REDUCTIONS)
    z, t = wide(student) / temperature, wide(teacher.detach()) / temperature
    p = t.sigmoid()
    values = -(p * F.logsigmoid(z) + (1 - p) * F.logsigmoid(-z))
    if form == "kl":
        values = values + p * F.logsigmoid(t) + (1 - p) * F.logsigmoid(-t)
    total = values.sum()
    if reduction != "sum":
        total = total / values.numel() / (2 if reduction == "mean" else 1)
    return total * temperature**2 if times_T2 else total


class MultiLabel(Labelled):
    """Any number of labels an example, as logits (B, C): above 0 = it is there.

    Args:
        label_names: the labels in the order of their ids.
    """

    name: ClassVar[str] = "multilabel"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    abilities: ClassVar[frozenset[str]] = frozenset({"decisions", "examples", "small"})

    def model_config(self) -> dict[str, Any]:
        """Return number and names of the labels, and that each is decided by itself."""
        return {**super().model_config(), "problem_type": "multi_label_classification"}

    def loss(self, outputs: Features, batch: Batch, reduction: str = "mean") -> Tensor:
        """Return the binary cross entropy: over examples and labels, or its sum."""
        choice("reduction", reduction, ("mean", "sum"))
        wanted = batch.labels[LABEL].to(wide(outputs["logits"]).dtype)
        return F.binary_cross_entropy_with_logits(wide(outputs["logits"]), wanted, reduction=reduction)

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
        """Return :func:`sigmoid_kl`."""
        return sigmoid_kl(student["logits"], teacher["logits"], temperature, form, reduction, times_T2)

    def decided(self, outputs: Features, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`Head.decided`: the labels whose logit is above 0, as numbers 0 and 1."""
        return {LABEL: (outputs["logits"] > 0).float()}

    def trivial(self, train: Targets, like: Targets) -> Predictions:
        """Return for every example the labels that more than half of train's examples have."""
        row = np.where(np.mean(train[LABEL], axis=0) > 0.5, 1.0, -1.0)
        return {"logits": np.tile(row, (len(like[LABEL]), 1)).astype(np.float32)}

    def small(self, width: int, dropout: float) -> FirstToken:
        """Make a pooler on the first token with a linear map to the labels."""
        return FirstToken(width, self.width, dropout)
