"""Sentences out of running text, by rule."""

from __future__ import annotations

import re
from collections.abc import Iterator

END = re.compile(r"""(?<=[.!?])["')\]]*\s+(?=["'(\[]?[A-Z0-9])""")
"""Between two sentences: a mark, and a capital letter or a number behind the space."""
SHORT = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|[A-Z]\.[A-Z]|Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|Gen|Col|No|vs|ca|cf|c|e\.g|i\.e|etc)\.$"
)
"""The end of a piece that is an abbreviation's point: the sentence goes on."""


def sentences(text: str, shortest: int, longest: int) -> Iterator[str]:
    """Return the sentences of a text that end with a mark and have ``shortest`` to ``longest`` characters, in order.

    A line is never joined with the next one. Headings and items of lists, which have no mark, are left out.
    """
    for line in text.splitlines():
        begun = ""
        for piece in END.split(line):
            begun = f"{begun} {piece}".strip()
            if SHORT.search(begun):
                continue
            whole, begun = begun, ""
            if shortest <= len(whole) <= longest and whole.rstrip("\"')]")[-1:] in {".", "!", "?"}:
                yield whole
