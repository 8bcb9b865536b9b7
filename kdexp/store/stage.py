"""A stage: one piece of work whose result is kept, addressed by everything that decides it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1
"""Raised by hand when the meaning of the code changes, so that older results are not taken for newer ones."""


TEACHER = "teacher"
"""Role of a stage that makes the teacher of a run."""


def digest(value: Any) -> str:
    """Return the sha256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Stage:
    """One training phase (or other piece of work) of a plan.

    Attributes:
        name: what people call it: ``teacher``, ``distill.intermediate``.
        action: ``module.function`` that carries it out: ``function(phase) -> Summary`` writes its files into
            the folder ``phase.work`` and returns what is worth keeping (:mod:`kdexp.train.phase`).
        settings: all science that decides its result (no paths, no devices).
        parents: stages whose results it reads, by role.
        shared: other runs are expected to use it too, so it stays in the store.
        role: what its result is to a run: :data:`TEACHER` for the teacher whose scores are checked and reported. No
            part of the key: it changes nothing in what is computed.
    """

    name: str
    action: str
    settings: dict[str, Any]
    parents: dict[str, Stage] = field(default_factory=dict)
    shared: bool = False
    role: str = ""

    @property
    def key(self) -> str:
        """The sha256 (hex) of settings, action and the parents' keys."""
        return digest(
            {
                "schema": SCHEMA,
                "action": self.action,
                "settings": self.settings,
                "parents": {role: parent.key for role, parent in self.parents.items()},
            }
        )


def order(last: list[Stage]) -> list[Stage]:
    """Return the stages that ``last`` need, parents first, each key once."""
    done: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        for parent in stage.parents.values():
            visit(parent)
        done.setdefault(stage.key, stage)

    for stage in last:
        visit(stage)
    return list(done.values())
