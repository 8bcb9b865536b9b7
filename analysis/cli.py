"""The verbs of this folder, ``kdexp VERB STUDY``: the keys that they share, and how what they say is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdexp.common.arguments import JSON, PROGRAM, ROOT, STUDY, Command, Key, carry_out, print_json

__all__ = ["COMMON", "STUDY", "Answer", "Key", "main", "verb"]

COMMON: dict[str, Key] = {
    "study": replace(STUDY, bare=True),
    "root": ROOT,
    "source": Key(
        "where results are read from: the tracking store or each run's result.json", "mlflow", ("mlflow", "folders")
    ),
    "uri": Key("MLflow tracking URI; empty: MLFLOW_TRACKING_URI, else sqlite:///<root>/mlflow.db", ""),
    "incomplete": Key("what to do when runs of the study are missing", "refuse", ("refuse", "allow")),
    "extra": Key("finished runs that the study's last grid does not list", "leave", ("leave", "include")),
    "mixture": Key("runs of one cell that differ in data, selection or settings", "refuse", ("refuse", "allow")),
    "by": Key(
        "settings with columns of their own, as student.sharing,recipe.epochs; auto: those that the grid varies; none",
        "auto",
    ),
}


@dataclass
class Answer:
    """What a verb has to say.

    Attributes:
        text: for people.
        data: the same for programs (``json=true``): names and numbers.
        written: files that hold it, which both are told.
    """

    text: str
    data: dict[str, Any]
    written: Sequence[Path] = field(default_factory=list)


def verb(purpose: str, keys: Mapping[str, Key], run: Callable[[dict[str, Any]], Answer]) -> Command:
    """Make a verb of a function that gets all keys with their values; ``json`` is a key of every verb."""

    def answer(json: bool, **options: Any) -> int:
        told = run(options)
        if json:
            print_json({**told.data, "written": list(told.written)})
            return 0
        print(told.text, end="\n" if told.text else "")
        if told.written:
            print("Written:", *told.written, sep="\n  " if len(told.written) > 1 else " ")
        return 0

    return Command(purpose, answer, {**keys, "json": JSON})


def main(name: str, command: Command, arguments: Sequence[str] | None = None) -> int:
    """Carry out a verb of this folder by the words of a command line; return the exit code.

    A ``ValueError`` (a person's mistake, or a study that is not ready) is one message and code 2.
    """
    return carry_out(f"{PROGRAM} {name}", command, sys.argv[1:] if arguments is None else arguments)
