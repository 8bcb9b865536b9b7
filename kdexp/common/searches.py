"""What a search leaves in its study's folder for those who read it: names of files, and how its values are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdexp.common import files

NOTE = ".optuna/search.json"
"""Where a study's folder says how it is searched: ``storage`` (null = the journal), ``space`` (name -> key), ..."""
JOURNAL = "optuna.journal"
"""The trials, unless a database was asked for."""
FIGURES = "figures"
"""The folder of the figures that a search draws at its end."""
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "open", "WAITING": "waiting"}
"""Optuna's name of a trial's state -> the word for people."""
TYPED = "typed"
"""Attribute of a trial: its values as they are typed on a command line."""


SHAPE = {"metrics": list, "directions": list, "space": dict, "seeds": list, "total": int}


def note(folder: Path) -> dict[str, Any] | None:
    """Return what a study's folder says of its search; None if it has none.

    Raises:
        ValueError: the note is damaged; it is named.
    """
    try:
        return files.read_record(folder / NOTE, SHAPE)
    except files.Damaged as error:
        raise ValueError(f"{error}: start the search once more, which writes it anew") from error


def counted(trials: list[Any]) -> list[Any]:
    """Leave out failed trials that were given another chance under a new number."""
    replaced = {trial.user_attrs.get("again") for trial in trials}
    return [trial for trial in trials if trial.number not in replaced]


def typed(trial: Any) -> list[str]:
    """Return a trial's values as they are typed on a command line (by name, where an older kdexp made it)."""
    return trial.user_attrs.get(TYPED) or [f"{name}={value}" for name, value in trial.params.items()]


def said(path: str, value: float) -> str:
    """Return a metric's value for people: scores times 100."""
    return f"{path} {100 * value:.1f}" if path == "score" or path.startswith("scores.") else f"{path} {value:.6g}"
