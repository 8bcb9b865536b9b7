"""A stage: one piece of work whose result is kept, addressed by everything that decides it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kdexp.common.registry import by_name
from kdexp.config.identity import SCHEMA, digest
from kdexp.config.schema import Config


@dataclass(frozen=True)
class Stage:
    """One training phase (or other piece of work) of a run.

    Attributes:
        name: what people call it: ``teacher``, ``distill.intermediate``.
        action: registered name of what carries it out, ``file.function`` in ``kdexp/methods/``: it writes its files
            into a work folder and returns a summary.
        settings: all science that decides its result (no paths, no devices).
        parents: stages whose results it reads, by role.
        shared: other runs are expected to use it too, so it stays in the store.
        config: the configuration that it is carried out with, where that is not the run's; no part of the key.
        role: what it is to the run: ``teacher`` for the one whose model teaches (it must pass the floor and stands in
            the result), else ''. No part of the key.
    """

    name: str
    action: str
    settings: dict[str, Any]
    parents: dict[str, Stage] = field(default_factory=dict)
    shared: bool = False
    role: str = ""
    config: Config | None = field(default=None, compare=False)

    @cached_property
    def key(self) -> str:
        """The sha256 (hex) of settings, action and the parents' keys; classes count by their registered names."""
        return digest(
            {
                "schema": SCHEMA,
                "action": self.action,
                "settings": by_name(self.settings),
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
