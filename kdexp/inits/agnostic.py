"""A student that was distilled on raw text, without a task: one stage, shared by all that comes after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from kdexp.config.schema import Seed, Share
from kdexp.inits.random import Random


@dataclass(frozen=True)
class Agnostic(Random):
    """The encoder of a run on raw text, which has groups of its own; whatever comes after it starts from there.

    A pooler and a classification head are new, as the texts have none.

    Attributes:
        task: the texts, a group ``task``.
        objective: what the student is trained on there, a group ``objective``.
        mapping: which layers are matched there, a group ``mapping``.
        recipe: how, a group ``recipe``.
        start: the student's first weights, a group ``init``.
        heldout: share of the documents that is set aside, never trained on.
        selection: which split picks the weights that go on; ``last`` = no selection.
        seed: of that stage; one student serves all seeds.
    """

    method: ClassVar[str | None] = "agnostic"
    elsewhere: ClassVar[frozenset[str]] = frozenset(
        {"task", "objective", "mapping", "recipe", "start", "heldout", "selection", "seed"}
    )

    task: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    mapping: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    heldout: Share = 0.01
    selection: str = "last"
    seed: Seed = 1
