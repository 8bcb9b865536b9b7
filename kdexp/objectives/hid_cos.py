"""Cosine of hidden states: DistilBERT's third term (Sanh et al. 2019, arXiv 1910.01108)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.objectives.base import Batch, Context, Features, Objective
from kdexp.objectives.common import choice, layers_of, mask_for, over_layers, picked, real_tokens, some, targets


def hidden_cosine(student: Tensor, teacher: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Mean of 1 - cos(student, teacher) over real tokens of hidden states (B, L, D); a zero vector has cosine 0.

    Args:
        attention_mask: (B, L), 1 = real token; None = every token counts.
    """
    gaps = 1 - F.cosine_similarity(student, teacher, dim=-1)
    mask = torch.ones_like(gaps) if attention_mask is None else attention_mask.to(gaps.dtype)
    return (gaps * mask).sum() / mask.sum()


class HidCos(Objective):
    """Sum (or mean) over matched layers of the mean over real tokens of 1 - cosine; widths must be equal.

    Scale is invisible to it. Default mapping: last layer with last layer.

    Args:
        layer_reduce: ``sum`` or ``mean`` over matched layers.
    """

    needs: ClassVar[tuple[str, ...]] = ("hidden",)
    answers: ClassVar[bool] = False
    layers: ClassVar[str] = "hidden"
    default_mapping: ClassVar[str] = "last_only"

    def __init__(self, layer_reduce: str = "sum") -> None:
        super().__init__()
        choice("layer_reduce", layer_reduce, ("sum", "mean"))
        self.layer_reduce = layer_reduce

    def setup(self, context: Context) -> None:
        """See :meth:`Objective.setup`; refuses unequal widths."""
        super().setup(context)
        assert context.teacher is not None
        mine, its = context.student.hidden_size, context.teacher.hidden_size
        if mine != its:
            raise ValueError(f"HidCos compares vectors of one width; the student's is {mine}, the teacher's {its}")

    def reads(self) -> str:
        """No padding."""
        return "real"

    def units(self, batch: Batch) -> Tensor:
        """Real tokens."""
        return real_tokens(batch)

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all matched layers."""
        assert teacher is not None
        ours = picked(student, "hidden", layers_of(self.pairs, 0))
        theirs = targets(teacher, "hidden", layers_of(self.pairs, 1))
        losses = [hidden_cosine(s, t, mask_for(batch, s)) for s, t in zip(ours, theirs, strict=True)]
        self.note(losses)
        return over_layers(losses, self.layer_reduce, some(student))
