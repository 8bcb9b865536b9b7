"""Which runs a study should have, and why the ones that are not there are not there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kdexp.common import files, results
from kdexp.common import status as run_status


@dataclass(frozen=True)
class Missing:
    """A run that a table would need: its name, its state on disk and why its result is not there."""

    name: str
    state: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.state}" + (f" ({self.why})" if self.why else "")


def expected(folder: Path) -> list[dict[str, Any]] | None:
    """The points that the sweeper wrote into ``study.json``; None without it, ``ValueError`` if it is damaged."""
    path = folder / "study.json"
    try:
        listed = files.read_record(path, {"points": list})
        return None if listed is None else [{**p, "id": str(p["id"]), "name": str(p["name"])} for p in listed["points"]]
    except (ValueError, KeyError, TypeError) as error:
        why = str(error) if isinstance(error, files.Damaged) else f"{path} is damaged ({error!r})"
        raise ValueError(f"{why}: start the study once more, which writes it anew") from None


def find_missing(folder: Path, have: set[str], source: str) -> list[Missing]:
    """Expected points whose id is not in ``have``; without ``study.json``, the run folders that are not finished."""
    points = expected(folder)
    if points is not None:
        return [_explain(folder, point["name"], source) for point in points if point["id"] not in have]
    names = sorted(path.parent.name for path in folder.glob("*/status.json"))
    states = [(name, _explain(folder, name, source)) for name in names]
    return [one for name, one in states if one.state != "finished" or _id(folder / name) not in have]


def _id(folder: Path) -> str:
    """The run id in a folder's result, empty if there is none that can be read."""
    try:
        return str((results.read(folder) or {"run": {}})["run"].get("id", ""))
    except (OSError, ValueError):
        return ""


def _explain(folder: Path, name: str, source: str) -> Missing:
    """The state of one run folder in words."""
    try:
        known = files.read_record(folder / name / run_status.STATUS, run_status.SHAPE)
        finished = results.read(folder / name) is not None
    except (OSError, ValueError) as error:
        return Missing(name, "damaged", f"{error}; run the study again")
    status, state = known or {}, "finished" if finished else str((known or {}).get("state", "not started"))
    if state == "not started":
        return Missing(name, state, "")
    if state == "finished":
        if not finished:
            return Missing(name, state, "but its result.json is gone; run the study again")
        why = (
            "python -m kdexp.tracking sync brings it up to date, source=folders reads the files"
            if source == "mlflow"
            else ""
        )
        return Missing(name, state, f"on disk, but not in {source}" + (f"; {why}" if why else ""))
    if state == "failed":
        return Missing(
            name, state, (str(status.get("error") or "no reason noted").strip().splitlines() or [""])[-1][:200]
        )
    if state == "running":
        return Missing(name, state, _age(status.get("updated")))
    return Missing(name, state, str(status.get("error") or ""))


def _age(updated: Any) -> str:
    """How long ago a run gave its last sign of life; ``updated`` is unix seconds or ISO 8601."""
    try:
        then = float(updated) if not isinstance(updated, str) else datetime.fromisoformat(updated).timestamp()
    except (TypeError, ValueError):
        return "no sign of life noted"
    return f"last sign of life {max(time.time() - then, 0) / 60:.0f} min ago"
