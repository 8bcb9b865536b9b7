"""Which runs a study should have, and why the ones that are not there are not there."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


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
    if not path.is_file():
        return None
    try:
        points = json.loads(path.read_text(encoding="utf-8"))["points"]
        return [{**point, "id": str(point["id"]), "name": str(point["name"])} for point in points]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); start the study once more, which writes it anew") from None


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
        return str(json.loads((folder / "result.json").read_text(encoding="utf-8"))["run"]["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _explain(folder: Path, name: str, source: str) -> Missing:
    """The state of one run folder in words."""
    path = folder / name / "status.json"
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
        state = str(status["state"])
    except FileNotFoundError:
        return Missing(name, "not started", "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Missing(name, "unknown", f"{path} is damaged: {error!r}")
    if state == "finished":
        if not (folder / name / "result.json").is_file():
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
