"""Which runs of a study still need a stage that is no run's own: its weights stay until the last of them has ended.

Before a grid starts, :func:`note` puts a file ``needed/<outline key>.<study>.<run>`` into the store for every run and
every phase that it shares with other runs of the grid; a run that ends takes its own files away (:func:`release`).
Outline keys come from configurations alone (``RunSpec.outline``); they are not the store's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from kdexp.common import files
from kdexp.store.stage import Stage


def note(store: Path, runs: Iterable[tuple[Path, Iterable[Stage]]]) -> None:
    """Write down which runs need the phases that several of them share.

    Args:
        store: the store's root.
        runs: folder and outline of each unfinished run of a grid.
    """
    users: dict[str, list[Path]] = {}
    for run_dir, outline in runs:
        for stage in outline:
            if not stage.shared:  # those that any study may share stay in any case
                users.setdefault(stage.key, []).append(run_dir)
    for key, run_dirs in users.items():
        for run_dir in run_dirs if len(run_dirs) > 1 else []:
            files.write_text(_mark(store, key, run_dir), str(run_dir.absolute()))


def release(store: Path, run_dir: Path, keys: dict[str, str]) -> set[str]:
    """Take note that a run needs its phases no longer, and return the keys of those that others still need.

    Of several runs that end at the same moment, at least one gets to see that nobody is left.

    Args:
        store: the store's root.
        run_dir: the run's folder.
        keys: outline key -> key in the store, of its stages.
    """
    kept = set()
    for said, key in keys.items():
        _mark(store, said, run_dir).unlink(missing_ok=True)
        if any(_unfinished(other) for other in (store / "needed").glob(f"{said}.*")):
            kept.add(key)
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


def _mark(store: Path, key: str, run_dir: Path) -> Path:
    return store / "needed" / f"{key}.{run_dir.parent.name}.{run_dir.name}"


def _unfinished(mark: Path) -> bool:
    """Tell whether a noted run is still to come: its study is there, and it has no result."""
    with contextlib.suppress(OSError, ValueError):  # the study is gone, or the note is no path
        run_dir = Path(mark.read_text())
        return (run_dir.parent / "study.json").is_file() and not (run_dir / "result.json").is_file()
    return False
