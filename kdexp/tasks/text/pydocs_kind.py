"""Does this documentation belong to a class, a function or a method? (one text, three classes)"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from kdexp.tasks.text import pydocs
from kdexp.tasks.text.embedded import EmbeddedTask, cut_by_module
from kdexp.tasks.text.rows import Rows

LABELS = ["class", "function", "method"]
SHORTEST, LONGEST = 30, 140  # characters of a documentation string
SHARE, PER_MODULE = 0.22, 60
PER_CLASS = {"train": 600, "validation": 180}


@dataclass
class PydocsKind(EmbeddedTask):
    """First sentences of a documentation string, without any name -> what they document.

    Classes are limited to equal sizes where there is enough; texts that document two kinds are left out.
    """

    name: str = "pydocs_kind"
    label_names: list[str] = field(default_factory=lambda: list(LABELS))
    metrics: list[str] = field(default_factory=lambda: ["accuracy", "f1_macro"])

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: other classes than class, function and method.
        """
        if list(self.label_names) != LABELS:
            raise ValueError(f"task.label_names={list(self.label_names)}: pydocs_kind has the classes {LABELS}")
        super().__post_init__()

    def gather(self, records: tuple[pydocs.Record, ...]) -> dict[str, Rows]:
        """See :meth:`EmbeddedTask.gather`."""
        kinds: dict[str, set[str]] = defaultdict(set)
        found: dict[str, tuple[str, str, str]] = {}
        for record in records:
            kind = "method" if record.kind == "function" and record.owner else record.kind
            text = pydocs.clip(" ".join(pydocs.prose(record.doc, LONGEST)[:1]), LONGEST)
            if kind in LABELS and len(text) >= SHORTEST:
                kinds[pydocs.normal(text)].add(kind)
                found.setdefault(pydocs.normal(text), (kind, record.module, text))
        items: dict[tuple[str, str], list[str]] = defaultdict(list)
        for key, (kind, module, text) in found.items():
            if len(kinds[key]) == 1:
                items[kind, module].append(text)
        whole = {module: [] for _, module in items}  # type: dict[str, list[tuple[str, str]]]
        for (kind, module), texts in items.items():
            whole[module] += [(kind, text) for text in sorted(texts, key=pydocs.rank)[:PER_MODULE]]
        by_module = {("all", module): pairs for module, pairs in whole.items()}
        parts = zip(
            ("train", "validation"), cut_by_module(by_module, SHARE, "pydocs_kind", 3 * PER_MODULE), strict=True
        )
        return {split: _rows(part["all"], PER_CLASS[split]) for split, part in parts}


def _rows(pairs: list[tuple[str, str]], most: int) -> Rows:
    """At most ``most`` texts of each kind, mixed."""
    chosen: list[tuple[str, str]] = []
    for kind in LABELS:
        chosen += sorted((p for p in pairs if p[0] == kind), key=lambda p: pydocs.rank(p[1]))[:most]
    chosen.sort(key=lambda pair: pydocs.rank("order", pair[1]))
    labels = np.array([LABELS.index(kind) for kind, _ in chosen], dtype=np.int64)
    return Rows([text for _, text in chosen], None, labels)
