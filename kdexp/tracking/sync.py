"""Bring the store up to date from the runs' folders, whatever became of them; the one place that sends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdexp.common import tracked
from kdexp.common.files import read_note
from kdexp.common.redact import outward, public
from kdexp.tracking import summary
from kdexp.tracking.files import MARKER, METRICS, Facts, lines, write_marker
from kdexp.tracking.mlflow_store import DEFAULTS, Store, TrackingError, resolve
from kdexp.tracking.view import View

if TYPE_CHECKING:
    from collections.abc import Callable

OUTCOMES = UPDATED, UNCHANGED, RUNNING, BEHIND = "brought up to date", "up to date already", "still running", "behind"
LOCK = ".tracking.lock"
"""In a run's folder: held while the run is sent. Two senders at once would do no harm, but twice the work."""
WAIT_S = 5.0
"""Seconds to wait for another sender of the same run; it needs less than one, or it hangs."""
Stores = dict[tuple[str, str], Store | TrackingError]  # (URI, study) -> the store, or why it cannot be used


def sync(root: str | Path = "multirun", study: str | None = None, uri: str | None = None, say: Callable = print) -> int:
    """Show every run under ``root`` in its store; repeatable, shows nothing twice.

    Args:
        root: folder of the studies.
        study: only this one.
        uri: this store; otherwise each run's own (the one it was shown in, the one in its config, MLFLOW_TRACKING_URI,
            or ``<root>/mlflow.db``).
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
    stores: Stores = {}
    for folder in run_folders(root, study):
        outcome, note = send(folder, resolve(uri or _uri(folder, root)), stores)
        counts[outcome] += 1
        if note:
            say(f"{folder.parent.name}/{folder.name}: {outcome}, {note}")
    unsaid = _summaries(root, stores)
    for note in unsaid:
        say(note)
    say(f"{sum(counts.values())} runs: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts[BEHIND] or unsaid else 0


def _summaries(root: Path, stores: Stores) -> list[str]:
    """Show each study as a whole in the store that has its runs; returns a sentence for each that could not be."""
    unsaid = []
    for (_, name), store in stores.items():
        if isinstance(store, Store) and (root / name).is_dir():
            try:
                summary.show(store, root / name, run_folders(root, name))
            except Exception as failure:
                unsaid.append(outward(f"{name}: its table is {BEHIND}, {type(failure).__name__}: {failure}"))
    return unsaid


def run_folders(root: Path, study: str | None = None) -> list[Path]:
    """Folders of runs, by study and name: those with numbers or a status in them."""
    folders = root.glob(f"{study or '[!.]*'}/[!.]*")
    return sorted(p for p in folders if (p / METRICS).exists() or (p / "status.json").exists())


def behind(root: str | Path, study: str | None = None) -> list[Path]:
    """Folders of tracked runs that their store does not show in full, judged by their own notes: no MLflow, quick."""
    return [folder for folder in run_folders(Path(root), study) if is_behind(folder)]


def is_behind(folder: Path, uri: str | None = None) -> bool:
    """Tell whether a tracked run has what its store (or the one at ``uri``) does not show, judged by its own note."""
    facts, note = Facts(folder), read_note(folder / MARKER)
    is_shown = note.get("state") == "synced" and note.get("stamp") == facts.stamp and uri in (None, note.get("uri"))
    if is_shown and next(lines(folder / METRICS, note.get("position") or 0), None) is None:
        return False
    return bool((facts.config.get("tracking") or {}).get("enabled", True))


def send(folder: Path, uri: str, stores: Stores, timeout_s: float = DEFAULTS["timeout_s"]) -> tuple[str, str]:
    """Show one run; what goes wrong is noted in its ``tracking.json``.

    Args:
        folder: the run's.
        uri: resolved address of the store.
        stores: those that were used before, by whoever calls this for several runs.
        timeout_s: seconds that one request to a server may take.

    Returns:
        ``(outcome, note for people)``.
    """
    from filelock import FileLock, Timeout

    facts = Facts(folder)
    try:
        with FileLock(folder / LOCK, timeout=WAIT_S):
            view = View(_store(facts, uri, stores, timeout_s), facts)
            news = view.show()
    except Timeout:
        return RUNNING, ""  # another process is at it
    except Exception as failure:
        why = outward(f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}")
        write_marker(folder, uri=public(uri), experiment=facts.study, state="behind", error=why)
        return BEHIND, why
    outcome = RUNNING if facts.state == "running" else UPDATED if news else UNCHANGED
    return outcome, f"{view.sent} points" if news else ""


def _uri(folder: Path, root: Path) -> str:
    shown = read_note(folder / MARKER).get("uri")
    if shown and "***@" not in shown:
        return str(shown)
    tracking = Facts(folder).config.get("tracking")
    wanted = tracking.get("uri") if isinstance(tracking, dict) else None
    return str(wanted) if wanted and "${" not in str(wanted) else tracked.uri(root)


def _store(facts: Facts, uri: str, stores: Stores, timeout_s: float) -> Store:
    """The store, found to have or take the study; one that failed is not asked again for each of its runs."""
    key = uri, facts.study
    if key not in stores:
        try:
            store = Store(uri, timeout_s)
            with store.lock(facts.folder.parent):
                store.study(facts.study, facts.folder.parent)
            stores[key] = store
        except TrackingError as failure:  # it says all
            stores[key] = failure
        except Exception as failure:
            stores[key] = TrackingError(f"{public(uri)} cannot be used: {failure}")
    store_or_error = stores[key]
    if isinstance(store_or_error, TrackingError):
        raise store_or_error
    return store_or_error
