"""Completion by the tab key: verbs, their keys and values, and the names of studies; Hydra completes what a run takes.

``eval "$(kdexp -sc install=bash)"`` installs Hydra's completion, which asks ``kdexp -sc query=bash`` what could follow
the line in COMP_LINE.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kdexp.cli import commands, offer
from kdexp.common.arguments import Command, Group


def asked(flags: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a command line asks what could follow another one."""
    return any(flag in ("-sc", "--shell-completion") for flag in flags) and any(w.startswith("query=") for w in words)


def suggest() -> bool:
    """Print what could follow; return whether that is all, as after a verb (the rest is Hydra's to say).

    Raises:
        ValueError: there is no line.
    """
    line = os.environ.get("COMP_LINE")
    if line is None:
        raise ValueError(
            "-sc query=...: a shell asks so, with its line in COMP_LINE. To have it ask: "
            'eval "$(kdexp -sc install=bash)".'
        )
    print(*suggestions(line))
    typed = line.split()[1:]
    return commands.asked(typed) and (len(typed) > 1 or line.endswith(" "))


def suggestions(line: str) -> list[str]:
    """Return the words that can stand at the end of a line as far as verbs are concerned."""
    typed = line.split()[1:]
    last = typed.pop() if typed and not line.endswith(" ") else ""
    if not typed:
        return [name for name in (*commands.names(), "help") if name.startswith(last)]
    if typed[0] == "help":
        return [name for name in (*commands.names(), *offer.groups()) if name.startswith(last)]
    if typed[0] not in commands.names():
        return []
    verb, rest = commands.load(typed[0]), typed[1:]
    if isinstance(verb, Group):
        inner = next((word for word in rest if word in verb.commands), None)
        if inner is None:
            return [name for name in verb.commands if name.startswith(last)]
        rest.remove(inner)
        verb = verb.commands[inner]
    return [word for word in _of_command(verb, rest) if word.startswith(last)]


def _of_command(command: Command, given: Sequence[str]) -> list[str]:
    """The keys that are left, each with its values where they are limited, and studies where one is wanted."""
    named = [word.partition("=")[0] for word in given if "=" in word]
    bare = len(given) - len(named)
    words = []
    for name, key in command.keys.items():
        if name in named:
            continue
        if key.bare and bare:
            bare -= 1
            continue
        root = next((word.partition("=")[2] for word in given if word.startswith("root=")), "multirun")
        studies = [path.parent.name for path in sorted(Path(root).glob("*/study.json"))] if name == "study" else []
        words += studies if key.bare else []
        words += [f"{name}={value}" for value in (*studies, *key.values)] or [f"{name}="]
    return words
