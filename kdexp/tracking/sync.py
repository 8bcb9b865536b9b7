"""``python -m kdexp.tracking sync``: bring the store up to date from all runs' folders, whatever became of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdexp.common.redact import without_passwords
from kdexp.tracking.files import MARKER, METRICS, Facts, read_json, write_marker
from kdexp.tracking.mlflow_store import Store, TrackingError, public, resolve
from kdexp.tracking.recorder import DEFAULTS, LOCK

if TYPE_CHECKING:
    from collections.abc import Callable

OUTCOMES = UPDATED, UNCHANGED, RUNNING, BEHIND = "brought up to date", "up to date already", "still running", "behind"
Reached = dict[tuple[str, str], Store | TrackingError]  # (URI, study) -> the store, or why it cannot be used


def sync(root: str | Path = "multirun", study: str | None = None, uri: str | None = None, say: Callable = print) -> int:
    """Show every run under ``root`` in its store; repeatable, shows nothing twice, leaves running runs alone.

    Args:
        root: folder of the studies.
        study: only this one.
        uri: this store; otherwise each run's own (the one it was shown in, the one in its config, or
            ``<root>/mlflow.db``).
        say: gets one line for each run that was changed or could not be, and a summary.

    Returns:
        0 when the store has everything, 1 when something is left.

    Raises:
        ValueError: there is no such folder.
    """
    root = Path(root)
    parent = root / study if study else root
    if not parent.is_dir():
        known = sorted(p.name for p in root.glob("[!.]*") if p.is_dir()) if root.is_dir() else []
        hint = f"studies there: {', '.join(known)}" if known else "give the folder of the studies with root=FOLDER"
        raise ValueError(f"there is no folder {parent}; {hint}")
    counts = dict.fromkeys(OUTCOMES, 0)
    reached: Reached = {}
    for folder in run_folders(root, study):
        outcome, note = _one(folder, resolve(uri or _uri(folder, root)), reached)
        counts[outcome] += 1
        if note:
            say(f"{folder.parent.name}/{folder.name}: {outcome}, {note}")
    say(f"{sum(counts.values())} runs: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts[BEHIND] else 0


def run_folders(root: Path, study: str | None = None) -> list[Path]:
    """Folders of runs, by study and name: those with numbers or a status in them."""
    found = root.glob(f"{study or '[!.]*'}/[!.]*")
    return sorted(p for p in found if (p / METRICS).exists() or (p / "status.json").exists())


def behind(root: str | Path, study: str | None = None) -> list[Path]:
    """Folders of tracked runs that their store does not show in full, judged by their own notes: no MLflow, quick.

    A study asks at its end, and calls :func:`sync` only if there are any.
    """
    found = []
    for folder in run_folders(Path(root), study):
        tracking = Facts.read(folder).config.get("tracking") or {}
        note = read_json(folder / MARKER)
        metrics = folder / METRICS
        size = metrics.stat().st_size if metrics.exists() else 0
        if tracking.get("enabled", True) and (note.get("state") != "synced" or (note.get("position") or 0) < size):
            found.append(folder)
    return found


def _uri(folder: Path, root: Path) -> str:
    shown = read_json(folder / MARKER).get("uri")
    if shown and "***@" not in shown:
        return str(shown)
    tracking = Facts.read(folder).config.get("tracking")
    wanted = tracking.get("uri") if isinstance(tracking, dict) else None
    return str(wanted) if wanted and "${" not in str(wanted) else f"sqlite:///{root}/mlflow.db"


def _one(folder: Path, uri: str, reached: Reached) -> tuple[str, str]:
    """What became of one run: ``(outcome, note)``."""
    from filelock import FileLock, Timeout

    facts = Facts.read(folder)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return RUNNING, ""  # its own process shows it
    try:
        points, ended = _show(facts, uri, reached)
    except Exception as failure:
        why = without_passwords(f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}")
        write_marker(folder, uri=public(uri), experiment=facts.study, state="behind", error=why)
        return BEHIND, why
    finally:
        lock.release()
    if facts.state == "running":
        return RUNNING, f"{points} points" if points else ""
    return (UPDATED, f"{points} points") if points or ended else (UNCHANGED, "")


def _show(facts: Facts, uri: str, reached: Reached) -> tuple[int, bool]:
    """Attach, feed, finish; ``(points sent, whether the run's end was news to the store)``."""
    from kdexp.tracking.view import View

    store = _reach(facts, uri, reached)
    tracking = facts.config.get("tracking") or {}
    view = View(store, facts, artifacts=bool(tracking.get("artifacts", DEFAULTS["artifacts"])))
    view.attach()
    view.feed()
    ended = facts.state != "running" and view.finish()
    view.mark()
    return view.sent, ended


def _reach(facts: Facts, uri: str, reached: Reached) -> Store:
    """The store, found to have or take the study; one that failed is not asked again for each of its runs."""
    key = uri, facts.study
    if key not in reached:
        try:
            store = Store(uri, float(DEFAULTS["timeout_s"]))
            with store.lock(facts.folder.parent):
                store.study(facts.study, facts.folder.parent)
            reached[key] = store
        except Exception as failure:
            reached[key] = TrackingError(f"{public(uri)} cannot be used: {failure}")
    found = reached[key]
    if isinstance(found, TrackingError):
        raise found
    return found
