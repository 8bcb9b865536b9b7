"""The keys that the commands of this folder share, and how they are run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdexp.common import arguments as words
from kdexp.common.arguments import ROOT, STUDY, Key

__all__ = ["COMMON", "STUDY", "Key", "main"]

COMMON: dict[str, Key] = {
    "study": STUDY,
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


def main(
    module: str,
    purpose: str,
    keys: Mapping[str, Key],
    run: Callable[[dict[str, Any]], object],
    arguments: Sequence[str] | None = None,
) -> int:
    """Carry out a command of this folder: ``run`` gets all keys with their values; return the exit code.

    A ``ValueError`` (a person's mistake, or a study that is not ready) is one message and code 2.
    """

    def carry_out(**options: Any) -> int:
        run(options)
        return 0

    given = sys.argv[1:] if arguments is None else arguments
    return words.carry_out(f"python -m {module}", words.Command(purpose, carry_out, keys), given)
