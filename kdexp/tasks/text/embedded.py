"""Tasks made from what every machine has: rows are gathered once, kept in the cache, and need no data root."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from kdexp.tasks.text import pydocs
from kdexp.tasks.text.encoding import remember, remembers
from kdexp.tasks.text.rows import Rows
from kdexp.tasks.text.sequence import SequenceTask

FEWEST_SOURCES = 100
"""A standard library with fewer source files than this is a stripped one."""


@lru_cache(maxsize=2)
def _state(root: Path) -> str:
    return pydocs.state(root)


@dataclass
class EmbeddedTask(SequenceTask):
    """A task built from the documentation strings of the running Python's standard library.

    Whole modules (source files) are either in train or in validation, and no text stands on both sides, so what is
    measured is a model's grasp of unseen modules. The rows depend on the Python version only.
    """

    @abstractmethod
    def gather(self, records: tuple[pydocs.Record, ...]) -> dict[str, Rows]:
        """Make ``train`` and ``validation`` from the corpus."""

    def problems(self, root: str | None) -> list[str]:
        """See :meth:`Task.problems`: an interpreter without the sources of its library."""
        found = len(pydocs.sources(pydocs.library()))
        if found >= FEWEST_SOURCES:
            return []
        return [
            f"task={self.name} reads the source files of Python's standard library, but {pydocs.library()} has only "
            f"{found} of them: use a complete Python 3.11 or later, or another task (task=rte with data.root=...)."
        ]

    def source_state(self, root: str | None, cache: Path | None) -> str:
        """Names, sizes and times of the library's files."""
        return f"{type(self).__qualname__} {_state(pydocs.library())}"

    def at_hand(self, root: str | None, cache: Path | None) -> bool:
        """Whether the rows were gathered before."""
        return remembers(cache, "embedded", self.source_state(root, cache))

    def rows(self, root: str | None, cache: Path | None) -> dict[str, Rows]:
        """The rows, from the cache or gathered (about 3 s).

        Raises:
            ValueError: the interpreter has no sources.
        """

        def compute() -> dict:
            wrong = self.problems(root)
            if wrong:
                raise ValueError(" ".join(wrong))
            made = self.gather(pydocs.corpus(pydocs.library()))
            return {s: {"first": r.first, "second": r.second, "labels": r.labels.tolist()} for s, r in made.items()}

        kept = remember(cache, "embedded", self.source_state(root, cache), compute)
        return {s: Rows(r["first"], r["second"], np.array(r["labels"], dtype=np.int64)) for s, r in kept.items()}


def cut_by_module(
    items: dict[tuple[str, str], list], share: float, salt: str, per_module: int
) -> tuple[dict[str, list], dict[str, list]]:
    """Cut into ``(train, validation)``, each area -> items ordered by module.

    Args:
        items: (area, module) -> items, in the order in which they are to be preferred.
        share: of an area's items for validation.
        salt: name of the task.
        per_module: no module gives more than this.
    """
    sizes: dict[str, dict[str, int]] = defaultdict(dict)
    for (area, module), found in items.items():
        sizes[area][module] = min(len(found), per_module)
    chosen = pydocs.validation_modules(sizes, share, salt)
    train: dict[str, list] = defaultdict(list)
    validation: dict[str, list] = defaultdict(list)
    for (area, module), found in sorted(items.items(), key=lambda item: item[0]):
        (validation if module in chosen else train)[area].extend(found[:per_module])
    return train, validation
