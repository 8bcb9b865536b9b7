"""Which runs of a study still need a stage that is no run's own: its weights stay until the last of them has ended.

Before a grid starts, :func:`note` puts a file ``needed/<outline key>.<study>.<run>`` into the store for every run and
every phase that it shares with other runs of the grid; a run that ends takes its own files away (:func:`release`).
Outline keys come from configurations alone, so that no data and no machine are looked at; they are not the store's.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.common import files
from kdexp.store.stage import Stage

if TYPE_CHECKING:
    from kdexp.launch.base import Point


def outline(config: dict[str, Any]) -> list[Stage]:
    """Return a run's stages in order, with keys that stand for what its configuration says."""
    from kdexp.methods import base as plan

    teacher = config["teacher"]
    data = json.dumps([config["task"], config["data"].get("root")], sort_keys=True)
    known = plan.Facts(data, f"{teacher.get('source')}@{teacher.get('revision')}", config["runtime"]["dtype"])
    return plan.stages(config, known)


def note(points: Iterable[Point]) -> None:
    """Write down which runs need the phases that several of them share.

    Args:
        points: of a grid, those that are not finished.
    """
    users: dict[tuple[Path, str], list[Point]] = {}
    for point in points:
        for stage in outline(point.config):
            if not stage.shared:  # those that any study may share stay in any case
                users.setdefault((_root(point.config), stage.key), []).append(point)
    for (root, key), several in users.items():
        for point in several if len(several) > 1 else []:
            files.write_text(_mark(root, key, point.folder), str(point.folder.absolute()))


def release(config: dict[str, Any], where: Path, stages: list[Stage]) -> set[str]:
    """Take note that a run needs its phases no longer, and return the keys of those that others still need.

    Of several runs that end at the same moment, at least one gets to see that nobody is left.

    Args:
        config: the run's resolved configuration.
        where: its folder.
        stages: its plan, with the keys of the store.
    """
    kept = set()
    root = _root(config)
    for said, stage in zip(outline(config), stages, strict=True):
        mark = _mark(root, said.key, where)
        mark.unlink(missing_ok=True)
        if any(_unfinished(other) for other in root.glob(f"{said.key}.*")):
            kept.add(stage.key)
    return kept


def waiting(store: Path) -> int:
    """Return how many unfinished runs are noted in a store; notes of runs that are over or gone are taken away.

    Args:
        store: the store's root.
    """
    runs = set()
    for mark in (store / "needed").glob("*"):
        if _unfinished(mark):
            runs.add(mark.read_text())
        else:
            mark.unlink(missing_ok=True)
    return len(runs)


def _root(config: dict[str, Any]) -> Path:
    return Path(config["runtime"]["store"]).expanduser().absolute() / "needed"


def _mark(root: Path, key: str, where: Path) -> Path:
    return root / f"{key}.{where.parent.name}.{where.name}"


def _unfinished(mark: Path) -> bool:
    """Tell whether a noted run is still to come: its study is there, and it has no result."""
    with contextlib.suppress(OSError):
        folder = Path(mark.read_text())
        return (folder.parent / "study.json").is_file() and not (folder / "result.json").is_file()
    return False
