"""Losses between sets of vectors: one a sentence, or one a token (a base, and pooling)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kdexp.heads.batch import MASK
from kdexp.heads.common import mean_pool
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice, exact, layers_of, mask_for, over_layers, picked, some, targets

POOLS = ("cls", "mean")
ROWS = ("sentences", "tokens")


def masked_rows(x: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Vectors as rows (N, D), and which of them are real, (N, 1) in their dtype; padded rows are zeros.

    Args:
        x: (N, D), or (B, L, D), of which every token is a row.
        attention_mask: (B, L) for tokens; None = all are real.
    """
    rows = x.reshape(-1, x.shape[-1])
    if attention_mask is None or x.dim() == 2:
        return rows, rows.new_ones(rows.shape[0], 1)
    real = attention_mask.reshape(-1, 1).to(rows.dtype)
    return rows * real, real


def centred(rows: Tensor, real: Tensor) -> Tensor:
    """Real rows minus their mean over the rows; the others stay zero."""
    return (rows - (rows * real).sum(0) / real.sum().clamp(min=1)) * real


class Relation(Objective):
    """Sum (or mean) over matched layers of a loss between the student's and the teacher's set of vectors.

    Unless a subclass says otherwise the vectors are one a sentence, widths may differ, and the value depends on who
    is in the batch (``batchwise``). By default the last layers are matched.

    Args:
        pool: how a sentence becomes a vector: ``mean`` of its real tokens, or ``cls``, its first one.
        layer_reduce: ``sum`` or ``mean`` over matched layers.
    """

    needs: ClassVar[tuple[str, ...]] = ("hidden",)
    answers: ClassVar[bool] = False
    layers: ClassVar[str] = "attention"
    default_mapping: ClassVar[str] = "last_only"
    batchwise = True

    def __init__(self, pool: str = "mean", layer_reduce: str = "sum") -> None:
        super().__init__()
        choice("pool", pool, POOLS)
        choice("layer_reduce", layer_reduce, ("sum", "mean"))
        self.pool, self.layer_reduce = pool, layer_reduce

    def reads(self) -> str:
        """The first position, or no padding."""
        return "first" if self.pool == "cls" else "real"

    def joins(self) -> bool:
        """Sentences' vectors do, each side pooling its own tokens."""
        return True

    def vectors(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return what is compared of hidden states (B, L, D): (B, D)."""
        return hidden[:, 0] if self.pool == "cls" else mean_pool(hidden, mask_for(batch, hidden))

    def relation(self, number: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Return the loss of one matched pair of layers, by its number from 0."""
        raise NotImplementedError

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all matched layers."""
        assert teacher is not None
        ours = picked(student, "hidden", layers_of(self.pairs, 0))
        theirs = targets(teacher, "hidden", layers_of(self.pairs, 1))
        read = Batch(batch.inputs, teacher[MASK], batch.labels, batch.index) if MASK in teacher else batch
        losses = []
        with exact(some(student)):
            for number, (s, t) in enumerate(zip(ours, theirs, strict=True)):
                losses.append(self.relation(number, self.vectors(s, batch), self.vectors(t, read), batch))
        self.note(losses)
        return over_layers(losses, self.layer_reduce, some(student))


class TokenRelation(Relation):
    """A relation between sentences' vectors, or between all real tokens of the batch.

    Args:
        rows: ``sentences`` (pooled) or ``tokens``; ``pool`` has no effect on tokens.
        pool, layer_reduce: as in :class:`Relation`.
    """

    def __init__(self, rows: str = "sentences", pool: str = "mean", layer_reduce: str = "sum") -> None:
        super().__init__(pool, layer_reduce)
        choice("rows", rows, ROWS)
        if rows == "tokens" and pool != "mean":
            raise ValueError(f"pool={pool} has no effect with rows=tokens, which compares every token. Leave it out")
        self.rows = rows

    def reads(self) -> str:
        """No padding, or the first position."""
        return "real" if self.rows == "tokens" else super().reads()

    def joins(self) -> bool:
        """Sentences' vectors do, tokens do not."""
        return self.rows == "sentences"

    def vectors(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return (B, D), or all tokens (B, L, D)."""
        return hidden if self.rows == "tokens" else super().vectors(hidden, batch)

    def mask(self, hidden: Tensor, batch: Batch) -> Tensor | None:
        """Return (B, L) for tokens, None for sentences."""
        return mask_for(batch, hidden) if self.rows == "tokens" else None


def frobenius(x: Tensor) -> Tensor:
    """Frobenius norm of the last two axes, (...); of a zero matrix 0, with a gradient of 0."""
    squares = x.square().sum((-2, -1))
    nothing = squares <= 1e-24
    return torch.where(nothing, 0.0, torch.where(nothing, 1.0, squares).sqrt())
