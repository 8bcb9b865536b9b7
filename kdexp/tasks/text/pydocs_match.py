"""Does this summary describe the function with this signature? (a pair of texts, two classes)"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from kdexp.tasks.text import pydocs
from kdexp.tasks.text.embedded import EmbeddedTask, cut_by_module
from kdexp.tasks.text.rows import Rows

LABELS = ["no", "yes"]
LONGEST = 140  # characters of a summary, and of a signature
SHARE, PER_MODULE = 0.22, 30
FUNCTIONS = {"train": 1100, "validation": 320}

Item = tuple[str, str, str]  # summary, signature, bare name


@dataclass
class PydocsMatch(EmbeddedTask):
    """First paragraph of a documentation string, signature of a function -> do they belong together?

    Every summary and every signature occurs twice, once in a true pair and once in a false one, so neither text
    alone tells anything. False pairs join neighbours of the same module (the same area where a module has one
    function only), and a function's own name is replaced by ``_`` in its summary, so shared words tell little.
    """

    name: str = "pydocs_match"
    label_names: list[str] = field(default_factory=lambda: list(LABELS))

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: other classes than no and yes.
        """
        if list(self.label_names) != LABELS:
            raise ValueError(f"task.label_names={list(self.label_names)}: pydocs_match has the classes {LABELS}")
        super().__post_init__()

    def gather(self, records: tuple[pydocs.Record, ...]) -> dict[str, Rows]:
        """See :meth:`EmbeddedTask.gather`."""
        seen: set[str] = set()
        items: dict[tuple[str, str], list[Item]] = defaultdict(list)
        for record in records:
            item = _item(record)
            if item is None:
                continue
            keys = {f"summary {pydocs.normal(item[0])}", f"signature {pydocs.normal(item[1])}"}
            if keys & seen or any(item[2] == other[2] for other in items[record.area, record.module]):
                continue
            seen |= keys
            items[record.area, record.module].append(item)
        for found in items.values():
            found.sort(key=lambda item: pydocs.rank("pydocs_match", item[0]))
        parts = zip(("train", "validation"), cut_by_module(items, SHARE, "pydocs_match", PER_MODULE), strict=True)
        return {split: _rows(part, FUNCTIONS[split]) for split, part in parts}


def _item(record: pydocs.Record) -> Item | None:
    """Summary, signature and name of a function that is documented well enough."""
    if record.kind != "function" or record.name.startswith("__"):
        return None
    summary = next(iter(pydocs.prose(record.doc.split("\n\n")[0], LONGEST)), "")
    own = rf"(?<![A-Za-z]){re.escape(record.name)}(?![A-Za-z])(\(\))?"
    summary = re.sub(own, "_", summary, flags=re.IGNORECASE)
    if len(pydocs.normal(summary).split()) < 4:
        return None
    return summary, f"def {record.name}({record.parameters})"[:LONGEST], record.name


def _rows(areas: dict[str, list[Item]], most: int) -> Rows:
    """True and false pairs of about ``most`` functions, each area in proportion, mixed."""
    total = sum(len(found) for found in areas.values())
    pairs: list[tuple[str, str, int]] = []
    for found in areas.values():
        quota = min(len(found), round(most * len(found) / total))
        kept = set(sorted((item[0] for item in found), key=lambda text: pydocs.rank("quota", text))[:quota])
        chosen: list[Item] = []
        for item in found:  # ordered by module
            if item[0] in kept and not (chosen and chosen[-1][2] == item[2]):
                chosen.append(item)
        if len(chosen) < 2 or chosen[0][2] == chosen[-1][2]:
            chosen = chosen[:-1]
        if len(chosen) < 2:
            continue
        for item, other in zip(chosen, chosen[1:] + chosen[:1], strict=True):
            pairs += [(item[0], item[1], 1), (item[0], other[1], 0)]
    pairs.sort(key=lambda pair: pydocs.rank("order", pair[0], pair[1]))
    labels = np.array([label for _, _, label in pairs], dtype=np.int64)
    return Rows([first for first, _, _ in pairs], [second for _, second, _ in pairs], labels)
