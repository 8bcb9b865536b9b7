"""What a person must change before anything can run, as sentences; all of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """The request cannot work as it is.

    Attributes:
        problems: one sentence each: the value, the rule, what to do.
    """

    def __init__(self, problems: Iterable[str]):
        self.problems = list(problems)
        super().__init__(f"{len(self.problems)} problem(s):\n" + "\n".join(f"  - {p}" for p in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        return type(self), (self.problems,)


def near(word: object, known: Iterable[object]) -> str:
    """Return ' Did you mean X?' for the closest known word, or ''."""
    match = difflib.get_close_matches(str(word), [str(k) for k in known], 1)
    return f" Did you mean {match[0]}?" if match else ""
