"""Some examples as people look at them: a text in which what is right and what was answered is marked.

A report reads them without knowing the task: ``{"as": "text" | "table", "examples": [{"id", "title", "text", "right",
"answer"}]}``, where ``right`` and ``answer`` are marks ``[first character, the one after the last, label]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

ENDING = ".shown.json"
"""End of the file's name beside a split's predictions."""
MOST = 40
"""Examples that are kept of a split, evenly spaced."""

Mark = list[Any]
"""First character, the one after the last, label."""


def document(form: str, count: int, example: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """Return what is kept of a split.

    Args:
        form: ``text`` = the text with its marks; ``table`` = a line a mark.
        count: examples of the split.
        example: makes what is shown of one.
    """
    some = np.unique(np.linspace(0, max(count - 1, 0), min(MOST, count)).astype(np.int64))
    return {"as": form, "examples": [{"id": int(i), **example(int(i))} for i in some]}
