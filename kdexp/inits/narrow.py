"""Inits that cut a teacher to the student's width: which hidden dimensions, heads and neurons are kept (a base)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from kdexp.config.schema import Depth
from kdexp.inits.base import Init
from kdexp.inits.cuts import keep_indices
from kdexp.inits.first import First
from kdexp.inits.last import Last
from kdexp.inits.layers import Layers
from kdexp.inits.spread import Spread

if TYPE_CHECKING:
    from torch import Tensor

DEPTHS: dict[str, type[Init]] = {"first": First, "last": Last, "spread": Spread}
Texts = Annotated[int, Field(ge=8, le=10**6)]


@dataclass(frozen=True)
class Sizes:
    """What a width consists of.

    Attributes:
        hidden, heads, neurons: hidden dimensions; attention heads; neurons of a feed-forward network.
    """

    hidden: int
    heads: int
    neurons: int

    @property
    def head_size(self) -> int:
        """Dimensions of a head."""
        return self.hidden // self.heads


@dataclass(frozen=True)
class Scores:
    """How important each part of a teacher is, by its answers to training texts.

    Attributes:
        hidden: (D,), one set for the whole model.
        heads: of each layer, (H,).
        neurons: of each layer, (F,).
        states: (n, D), hidden states of real tokens, or None.
    """

    hidden: Tensor
    heads: list[Tensor]
    neurons: list[Tensor]
    states: Tensor | None = None


@dataclass(frozen=True)
class Plan:
    """One index plan for all weights. Layers are those of the student.

    Attributes:
        hidden: dimensions kept, the same in the whole model.
        heads: heads kept in each layer.
        neurons: neurons kept in each layer.
    """

    hidden: list[int]
    heads: list[list[int]]
    neurons: list[list[int]]


@dataclass(frozen=True)
class Narrow(Init):
    """A student of fewer layers, and narrower, of which every weight is a part of the teacher's.

    Width and depth are chosen apart. Hidden dimensions are one set for the whole model, heads are kept whole, neurons
    are chosen in each layer. A slice of the hidden width is *not* the teacher's function on fewer dimensions:
    LayerNorm takes mean and variance over all of them.

    Attributes:
        depth: which layers: ``first``, ``last``, ``spread``, or a list of 1-based teacher layers.
        calibration: training texts that the teacher reads for the scores, where the rule asks for them.
    """

    narrows: ClassVar[bool] = True
    scored: ClassVar[bool] = False
    """It asks the teacher for scores."""
    shrinks_heads: ClassVar[bool] = False
    """Its heads may be smaller than the teacher's."""

    depth: Literal["first", "last", "spread"] | list[Depth] = "spread"

    def layers(self, student_layers: int, teacher_layers: int) -> list[int] | None:
        """Return the layers that ``depth`` names.

        Raises:
            ValueError: an unknown name, or layers that the teacher does not have.
        """
        if isinstance(self.depth, str):
            if self.depth not in DEPTHS:
                known = ", ".join(DEPTHS)
                raise ValueError(
                    f"init.depth={self.depth} is unknown; choose one of {known}, or a list of teacher layers."
                )
            return DEPTHS[self.depth](name=self.name).layers(student_layers, teacher_layers)
        return Layers(name=self.name, chosen=list(self.depth)).layers(student_layers, teacher_layers)

    def unfit(self, teacher: dict[str, Any], student: dict[str, Any]) -> list[str]:
        """Say why a student of these sizes cannot be cut from such a teacher (keys of the groups of that name)."""
        found = [
            f"init={self.name} keeps parts of the teacher: student.{key}={student[key]} is more than the teacher's "
            f"{teacher[key]}; lower it, or use init=random."
            for key in ("hidden_size", "num_heads", "intermediate_size")
            if student[key] > teacher[key]
        ]
        sizes = [side["hidden_size"] // side["num_heads"] for side in (student, teacher)]
        if found or sizes[0] == sizes[1]:
            return found
        if self.shrinks_heads and sizes[0] < sizes[1]:
            return []
        whole, rest = divmod(student["hidden_size"], sizes[1])
        way = f"student.num_heads={whole}" if not rest else f"a student.hidden_size that is a multiple of {sizes[1]}"
        return [
            f"init={self.name} keeps whole heads of {sizes[1]} dimensions, and student.hidden_size="
            f"{student['hidden_size']} with student.num_heads={student['num_heads']} has heads of {sizes[0]}: use {way}"
            f"{'' if self.shrinks_heads else ', or init=svd'}."
        ]

    def plan(self, teacher: Sizes, student: Sizes, chosen: Sequence[int], scores: Scores | None) -> Plan:
        """Return what is kept: the leading dimensions, heads and neurons unless a subclass knows better.

        Args:
            chosen: 1-based teacher layer of each student layer.
            scores: the teacher's, where the rule asks for them.
        """
        count = len(chosen)
        heads, neurons = list(range(student.heads)), list(range(student.neurons))
        return Plan(list(range(student.hidden)), [heads] * count, [neurons] * count)


@dataclass(frozen=True)
class ScoredNarrow(Narrow):
    """A rule that keeps the most important heads and neurons of each layer, and some hidden dimensions."""

    scored: ClassVar[bool] = True

    calibration: Texts = 256

    def hidden(self, scores: Scores, keep: int) -> list[int]:
        """Return the hidden dimensions that are kept."""
        raise NotImplementedError

    def plan(self, teacher: Sizes, student: Sizes, chosen: Sequence[int], scores: Scores | None) -> Plan:
        """Return the most important parts, in their order."""
        assert scores is not None
        return Plan(
            self.hidden(scores, student.hidden),
            [keep_indices(scores.heads[layer - 1], student.heads) for layer in chosen],
            [keep_indices(scores.neurons[layer - 1], student.neurons) for layer in chosen],
        )
