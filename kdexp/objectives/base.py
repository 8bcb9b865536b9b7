"""The interface of an objective.

Legend of shapes: B sentences, L padded length, D width, H attention heads, d = D/H, C classes.

A *feature* is a named tensor of a model's forward pass:

============== ============ ==================================================================
name           shape        meaning
============== ============ ==================================================================
``logits``     (B, C)       the head's output before softmax (C = 1 for regression)
``hidden.J``   (B, L, D)    output of layer J; layers count from 1, ``hidden.0`` is the embedding output
``query.J``    (B, H, L, d) projected queries of layer J, likewise ``key.J`` and ``value.J``
============== ============ ==================================================================

An objective says which *kinds* of features it ``needs`` and on which layers they are wanted (its mapping);
nothing else is computed or kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

Features = dict  # dict[str, Tensor]: see the table above
Batch = dict  # dict[str, Tensor]: "labels" (B,), "attention_mask" (B, L) 1 = real token, "index" (B,) example ids
Pairs = list  # list[tuple[int, int]]: (student layer, teacher layer), 1-based, 0 = embedding output


@dataclass(frozen=True)
class Shape:
    """What an objective may know of a model: sizes, not weights.

    ``num_layers`` counts *effective* layers (more than the owned ones when parameters are shared).
    """

    num_layers: int
    hidden_size: int
    num_heads: int


@dataclass(frozen=True)
class Context:
    """What an objective is told once, before training.

    Attributes:
        student, teacher: sizes of both models (teacher is None without one).
        pairs: matched layers, ``(student layer, teacher layer)``, 1-based, 0 = embedding output.
        num_labels: C; 1 for regression.
        regression: the labels are scores, not classes.
        num_train: number of training examples (example ids in ``batch["index"]`` are below it).
        labels: integer labels of all training examples, indexed by example id (None for regression).
    """

    student: Shape
    teacher: Shape | None
    pairs: Pairs
    num_labels: int
    regression: bool
    num_train: int
    labels: list[int] | None = None


class Objective(nn.Module):
    """A scalar loss over a student's and a teacher's features.

    Subclasses are plain modules: settings are keyword arguments of ``__init__`` (the YAML of the same name gives
    them), learnable parts are created in :meth:`setup` and are trained by the student's optimiser, saved with the
    checkpoint and never exported.

    Class attributes:
        needs: kinds of per-layer features, out of ``hidden``, ``query``, ``key``, ``value``; logits are always there.
        uses_teacher: False for an objective that looks at labels only.
        layers: how its default mapping counts: ``"none"``, ``"attention"`` (layers only) or ``"hidden"`` (the
            embedding output can take part).
        default_mapping: the mapping's name that ``mapping=auto`` stands for.
        same_heads: needs as many heads in the student as in the teacher.
        regression: whether it is defined when labels are scores.
        follows_checkpoints: it is told which of how many teacher checkpoints it follows (``checkpoint``,
            ``checkpoints``).
    """

    needs: ClassVar[tuple[str, ...]] = ()
    uses_teacher: ClassVar[bool] = True
    layers: ClassVar[str] = "none"
    default_mapping: ClassVar[str] = "uniform"
    same_heads: ClassVar[bool] = False
    regression: ClassVar[bool] = True
    follows_checkpoints: ClassVar[bool] = False

    pairs: Pairs = []
    layer_losses: Tensor | None = None

    def note(self, losses: list[Tensor]) -> None:
        """Keep each matched layer's loss on this batch for the log (not in compiled code)."""
        if losses and not torch.compiler.is_compiling():
            self.layer_losses = torch.stack([loss.detach() for loss in losses])

    def setup(self, context: Context) -> None:
        """Learn the sizes and create learnable parts. Called once, before the optimiser is made."""
        self.pairs = list(context.pairs)

    def inherit(self, folders: dict[str, Path]) -> None:
        """Hear where the results of the stage's parents are, by role; for parts that an earlier stage has learned."""

    def fits(self, epochs: int) -> None:
        """Refuse a phase of ``epochs`` epochs that a schedule of this objective cannot fill, with a ValueError."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Hear that epoch ``epoch`` (from 0) of ``epochs`` starts; for objectives with a schedule."""

    def units(self, batch: Batch) -> Tensor | None:
        """Count what :meth:`forward` averages over in this batch, as a scalar tensor.

        Gradient accumulation weighs a micro-batch by its share of units, which makes n micro-batches equal to one
        batch. Sentences by default; return None if the loss is a plain sum (nothing to weigh).
        """
        return batch["labels"].new_tensor(len(batch["labels"]), dtype=batch["attention_mask"].dtype)

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss, a float32 scalar."""
        raise NotImplementedError
