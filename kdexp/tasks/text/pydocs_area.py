"""Which area of Python's standard library does this documentation come from? (one text, eight classes)"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from kdexp.tasks.text import pydocs
from kdexp.tasks.text.embedded import EmbeddedTask, cut_by_module
from kdexp.tasks.text.rows import Rows

LABELS = [area for area in pydocs.AREAS if area != "other"]
SHORTEST, LONGEST = 50, 200  # characters of a documentation string
SHARE, PER_MODULE = 0.22, 100
PER_CLASS = {"train": 280, "validation": 80}


@dataclass
class PydocsArea(EmbeddedTask):
    """Documentation of a module, class or function -> area of the library.

    The text is the object's name and the prose of its documentation string, cut to whole sentences. Classes are
    limited to equal sizes where there is enough. Texts that stand in two areas are left out.
    """

    name: str = "pydocs_area"
    label_names: list[str] = field(default_factory=lambda: list(LABELS))
    metrics: list[str] = field(default_factory=lambda: ["accuracy", "f1_macro"])

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: other classes than the areas.
        """
        if list(self.label_names) != LABELS:
            raise ValueError(f"task.label_names={list(self.label_names)}: pydocs_area has the classes {LABELS}")
        super().__post_init__()

    def gather(self, records: tuple[pydocs.Record, ...]) -> dict[str, Rows]:
        """See :meth:`EmbeddedTask.gather`."""
        known = [(r, text) for r in records if r.area in LABELS and (text := _text(r.doc))]
        areas = defaultdict(set)
        for record, text in known:
            areas[pydocs.normal(text)].add(record.area)
        seen: set[str] = set()
        items: dict[tuple[str, str], list[str]] = defaultdict(list)
        for record, text in known:
            key = pydocs.normal(text)
            if key in seen or len(areas[key]) > 1:
                continue
            seen.add(key)
            name = " ".join(part for part in (record.owner, record.name) if part)
            items[record.area, record.module].append(f"{name}: {text}" if name else text)
        for found in items.values():
            found.sort(key=pydocs.rank)
        parts = zip(("train", "validation"), cut_by_module(items, SHARE, "pydocs_area", PER_MODULE), strict=True)
        return {split: _rows(part, PER_CLASS[split]) for split, part in parts}


def _text(doc: str) -> str:
    """The prose of a documentation string in ``LONGEST`` characters, or '' when it says too little."""
    text = pydocs.clip(" ".join(pydocs.prose(doc, LONGEST)), LONGEST)
    return text if len(text) >= SHORTEST else ""


def _rows(areas: dict[str, list[str]], most: int) -> Rows:
    """At most ``most`` texts of each area, mixed."""
    chosen = [(text, LABELS.index(a)) for a, texts in areas.items() for text in sorted(texts, key=pydocs.rank)[:most]]
    chosen.sort(key=lambda item: pydocs.rank("order", item[0]))
    return Rows([text for text, _ in chosen], None, np.array([label for _, label in chosen], dtype=np.int64))
