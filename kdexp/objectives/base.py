"""The interface of an objective.

Legend of shapes: B examples, L padded length, D width, H attention heads, d = D/H, C classes.

A *feature* is a named tensor of a model's forward pass:

============== ============ ==================================================================
name           shape        meaning
============== ============ ==================================================================
``logits``     (B, C)       the head's output before softmax (C = 1 for a score); other heads
                            have other outputs (:attr:`kdexp.heads.base.Head.names`)
``hidden.J``   (B, L, D)    output of layer J; layers count from 1, ``hidden.0`` is the embedding output
``query.J``    (B, H, L, d) projected queries of layer J, likewise ``key.J`` and ``value.J``
``module:P.J`` any          output of the module whose path is P, in which ``{block}`` is layer J's own path;
                            ``module:P`` where P names no layer (:mod:`kdexp.models.capture`)
============== ============ ==================================================================

An objective says which *kinds* of features it ``needs`` (the part before ``.J``) and on which layers they are wanted
(its mapping); nothing else is computed or kept. What compares answers with labels or with a teacher's answers is asked
of the head, so that an objective on answers works for every kind of answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from kdexp.common.registry import kind
from kdexp.heads.base import Head, unanswered
from kdexp.heads.batch import Batch, Features, Targets
from kdexp.models.families.base import Shape

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = ["READS", "Batch", "Context", "Features", "Head", "Objective", "Pairs", "Shape", "Targets"]

READS = ("first", "real", "all")
"""Positions that an objective reads, from few to many: the first of ``hidden``, the real ones, padding too."""

Pairs = list  # list[tuple[int, int]]: (student layer, teacher layer), 1-based, 0 = embedding output


@dataclass(frozen=True)
class Context:
    """What an objective is told once, before training.

    Attributes:
        student, teacher: sizes of both models (teacher is None without one).
        pairs: matched layers, ``(student layer, teacher layer)``, 1-based, 0 = embedding output.
        head: what the models answer.
        num_train: number of training examples (example ids in ``batch.index`` are below it).
        targets: labels of all training examples by name, in the order of their ids.
    """

    student: Shape
    teacher: Shape | None
    pairs: Pairs
    head: Head
    num_train: int
    targets: Targets


@kind
class Objective(nn.Module):
    """A scalar loss over a student's and a teacher's features.

    Subclasses are plain modules: settings are keyword arguments of ``__init__`` (the YAML of the same name gives
    them), learnable parts are created in :meth:`setup` and are trained by the student's optimiser, saved with the
    checkpoint and never exported.

    Class attributes:
        needs: kinds of features beside the head's outputs: ``hidden``, ``query``, ``key``, ``value``, ``module:PATH``.
        answers: it reads the head's outputs. False = the features that it needs, and labels, are all: where every
            objective of a phase says so, a forward pass stops above the last wanted feature and there are no outputs.
        uses_teacher: False for an objective that looks at labels only.
        layers: how its default mapping counts: ``"none"``, ``"attention"`` (layers only) or ``"hidden"`` (the
            embedding output can take part).
        default_mapping: the mapping's name that ``mapping=auto`` stands for.
        needs_maps: it reads maps of convolutions (B, C, H, W), which not every architecture has.
        same_heads: needs as many heads in the student as in the teacher.
        follows_checkpoints: it is told which of how many teacher checkpoints it follows (``checkpoint``,
            ``checkpoints``).
        softened_by: settings that it hands to the head's ``soft_loss``, each with the argument's name there.
        asks: what it asks of the head, keys of :data:`kdexp.heads.base.ABILITIES`; () = any head will do.
        batchwise: its value depends on who is in the batch together, so that neither micro-batches nor the shares of
            several devices add up to it: accumulation is refused. Where a setting decides, ``__init__`` sets it.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[bool] = True
    uses_teacher: ClassVar[bool] = True
    layers: ClassVar[str] = "none"
    default_mapping: ClassVar[str] = "uniform"
    needs_maps: ClassVar[bool] = False
    same_heads: ClassVar[bool] = False
    follows_checkpoints: ClassVar[bool] = False
    softened_by: ClassVar[Mapping[str, str]] = {}
    asks: ClassVar[tuple[str, ...]] = ()
    batchwise: bool = False

    head: Head
    pairs: Pairs = []
    layer_losses: Tensor | None = None

    def note(self, losses: list[Tensor]) -> None:
        """Keep each matched layer's loss on this batch for the log (not in compiled code)."""
        if losses and not torch.compiler.is_compiling():
            self.layer_losses = torch.stack([loss.detach() for loss in losses])

    def setup(self, context: Context) -> None:
        """Learn the sizes and create learnable parts. Called once, before the optimiser is made.

        Raises:
            ValueError: the head or the sizes do not fit.
        """
        lacking = unanswered(self.asks, context.head)
        if lacking:
            raise ValueError(f"{type(self).__name__} {lacking}")
        self.suits(context.head)
        self.head, self.pairs = context.head, list(context.pairs)

    def suits(self, head: Head) -> None:
        """Refuse a head on whose answers nothing of this loss is left, with a ValueError; checks ask it before data."""

    def inherit(self, folders: dict[str, Path]) -> None:
        """Hear where the results of the stage's parents are, by role; for parts that an earlier stage has learned."""

    def fits(self, epochs: int) -> None:
        """Refuse a phase of ``epochs`` epochs that a schedule of this objective cannot fill, with a ValueError."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Hear that epoch ``epoch`` (from 0) of ``epochs`` starts; for objectives with a schedule."""

    def reads(self) -> str:
        """Say at which positions its loss depends on the features it needs, one of :data:`READS`.

        A stored teacher has nothing at padding but zeros, so it serves ``first`` and ``real`` only. ``all`` unless a
        subclass knows better.
        """
        return "all"

    def joins(self) -> bool:
        """Tell whether teacher and student may read a text in other tokens: nothing is compared token by token.

        Answers, and what stands at the first position, belong to the example. One that pools hidden states says so,
        and pools the teacher's by ``teacher[MASK]`` (:data:`kdexp.heads.batch.MASK`), if that is there.
        """
        return not self.needs or (set(self.needs) == {"hidden"} and self.reads() == "first")

    def units(self, batch: Batch) -> Tensor | None:
        """Count what :meth:`forward` averages over in this batch, as a scalar tensor.

        Gradient accumulation weighs a micro-batch by its share of units, which makes n micro-batches equal to one
        batch. Examples by default; return None if the loss is a plain sum (nothing to weigh).
        """
        return batch.index.new_tensor(len(batch))

    def undivided(self) -> str:
        """Say why slices of a batch, each weighed by its units, do not add up to the batch; '' = they do.

        Then several devices a run are refused. It goes on from the objective's name: ``compares examples with ...``.
        """
        return "depends on who is in a batch together" if self.batchwise else ""

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss, a float32 scalar."""
        raise NotImplementedError
