"""How far up a forward pass goes: no layer is run above the last one that somebody reads, and of the last layer only
the first token's row where a classifier reads no other.

A gate in front of every block decides whether the block is run, handed through, or run in part. It is put there once
(:func:`install`) and set anew for each forward pass (:func:`limit`), from the names of the features that are wanted; a
model without gates, or of a family that does not say how its blocks are taken apart, is run whole.

Names of features are those of :mod:`kdexp.models.capture`. Legend: B examples, L padded length, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from kdexp.heads.base import Head
from kdexp.models import shared_layers
from kdexp.models.families import base as families
from kdexp.models.families.base import ATTENTION, Block

PARTS = ("query", "key", "value")
MODULE = "module:"
BLOCK = "{block}"
GATE = "_kdexp_gate"
"""Attribute of a model that has gates."""


@dataclass
class Gate:
    """What one forward pass runs of a model's blocks, counted from 1.

    Attributes:
        depth: effective blocks of the model.
        block: how one is taken apart; None = it is run whole or not at all.
        pools: the model's classifier reads the last block at the first token only.
        again: the last block is a layer that is run once more: transformers lists its output for the one before too.
        whole: blocks that are run as they are; those above are handed through, but for a part of the next one.
        parts: kinds of projections that are made of the block above them.
        row: the block above them, the last one, is run for the first token.
    """

    depth: int
    block: Block | None
    pools: bool
    again: bool
    whole: int
    parts: list[str] = field(default_factory=list)
    row: bool = False

    def open(self) -> None:
        """Let everything be run."""
        self.whole, self.parts, self.row = self.depth, [], False

    def run(self, number: int, block: nn.Module, hidden_BLD: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Be the forward pass of block ``number``: the whole of it, a part, or nothing."""
        if number <= self.whole:
            return type(block).forward(block, hidden_BLD, *args, **kwargs)  # type: ignore[no-any-return]
        if number == self.whole + 1 and self.row:
            assert self.block is not None
            mask = args[0] if args else kwargs["attention_mask"]
            layer, exchange = shared_layers.owner(block)
            return self.block.first_row(layer, hidden_BLD, mask, exchange)
        if number == self.whole + 1 and self.parts:
            self._project(number, block, hidden_BLD, kwargs["taps"])
        return hidden_BLD

    def _project(self, number: int, block: nn.Module, hidden_BLD: Tensor, taps: dict[str, Any]) -> None:
        """Record a block's projections as its attention would, and nothing else of it."""
        assert self.block is not None
        layer, exchange = shared_layers.owner(block)
        for kind in self.parts:
            place = PARTS.index(kind)
            place = 1 - place if exchange and place < 2 else place
            taps["got"][f"{kind}.{number}"] = self.block.project(layer, place, hidden_BLD)


def install(model: nn.Module) -> None:
    """Put a gate in front of every block of a model, once, if its family says that this is possible; all are open."""
    family = families.of(model)
    if hasattr(model, GATE) or not family.stops:
        return
    tapped = model.config._attn_implementation == ATTENTION  # type: ignore[union-attr]
    block, blocks = family.block if tapped else None, family.layers(model)
    again = isinstance(blocks[-1], shared_layers.RepeatedLayer)
    if block is None and again:
        return  # transformers' list of hidden states would be too short
    gate = Gate(len(blocks), block, block is not None and family.reads_first_token(model), again, len(blocks))
    for number, one in enumerate(blocks, 1):
        one.forward = partial(gate.run, number, one)  # type: ignore[method-assign]  # a copy of the model has its own
    setattr(model, GATE, gate)


def limit(model: nn.Module, head: Head, want: frozenset[str], answers: bool) -> None:
    """Set a model's gates for the next forward pass.

    Args:
        head: says whether its outputs are the classifier's, which may read the first token only.
        want: names of the features that will be read.
        answers: the head's outputs will be read too.
    """
    gate: Gate | None = getattr(model, GATE, None)
    if gate is None:
        return
    gate.open()
    if any(name.startswith(MODULE) and BLOCK not in name for name in want):
        return  # it may stand above all blocks
    if answers:
        highest = max([_layer(name) for name in want], default=0)
        if gate.pools and head.of_classifier and highest < gate.depth - gate.again:
            gate.whole, gate.row = gate.depth - 1, True
        return
    parts = PARTS if gate.block else ()
    whole = max([_layer(name) for name in want if _kind(name) not in parts], default=0)
    projected = max([_layer(name) for name in want if _kind(name) in parts], default=0)
    gate.whole = max(whole, projected - 1)
    if projected > whole:
        gate.parts = [kind for kind in PARTS if f"{kind}.{projected}" in want]


def describe(model: nn.Module, head: Head, want: frozenset[str], answers: bool) -> dict[str, Any]:
    """Say what a forward pass runs of a model: ``layers``, how many ``whole``, what of the next; {} = not known."""
    limit(model, head, want, answers)
    gate: Gate | None = getattr(model, GATE, None)
    if gate is None:
        return {}
    part = "first token" if gate.row else " ".join(gate.parts)
    return {"layers": gate.depth, "whole": gate.whole, "next": part or None}


def _kind(name: str) -> str:
    return name.rpartition(".")[0]


def _layer(name: str) -> int:
    return int(name.rpartition(".")[2])
