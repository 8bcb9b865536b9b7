"""Where the view lives: tracking URIs, the embedded SQLite store, experiments, parent and child runs.

Traps of MLflow 3.17 that are guarded here:

- Two processes that first touch a fresh SQLite file break it for ever. :func:`create` builds the file aside, in its
  own process and under a file lock, and moves it into place: a file that exists is complete.
- The defaults wait four minutes for a dead server. :func:`load` lowers them before MLflow is imported.
- SQLite stores put artifacts under the current directory. Experiments are created with a place beside the store.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import math
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from kdexp.common import files, sqlite
from kdexp.common.redact import public
from kdexp.common.tracked import ARTIFACTS
from kdexp.tracking import moved, pages

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger("kdexp.tracking")

DEFAULTS: dict[str, Any] = {
    "enabled": True,
    "uri": "sqlite:///multirun/mlflow.db",
    "every_s": 10.0,
    "timeout_s": 5.0,
    "system_metrics": True,
    "artifacts": True,
}
LOCK_S = 60.0  # how long to wait for another process that creates an experiment or a parent run
CREATE_S = 900.0  # how long to wait for a store's tables; seconds, unless the machine has much else to do
_REMOTE = ("http", "https")
_DATABASE = ("sqlite", "postgresql", "mysql", "mssql")


class TrackingError(RuntimeError):
    """The store cannot be used; the message says why and what to do. Never leaves the tracking room in a run."""


def problems(tracking: dict[str, Any]) -> list[str]:
    """Everything wrong with the settings of ``conf/tracking``, as sentences for people; touches no store."""
    found = [
        f"tracking.{key}={tracking[key]!r} must be a number above 0"
        for key in ("every_s", "timeout_s")
        if key in tracking and not (_is_number(tracking[key]) and tracking[key] > 0)
    ]
    uri = tracking.get("uri")
    if tracking.get("enabled", True):
        try:
            scheme = urlsplit(str(uri or "")).scheme.split("+")[0]
        except ValueError:  # such as http://[::1
            scheme = ""
        if scheme not in (*_REMOTE, *_DATABASE):
            found.append(
                f"tracking.uri={public(uri)!r} is no store that MLflow writes to: use sqlite:///FOLDER/mlflow.db, "
                "http://HOST:PORT, or switch tracking off with tracking=off"
            )
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def resolve(uri: str) -> str:
    """``uri`` with the path of a SQLite file made absolute (against the current directory)."""
    path = sqlite.path_of(uri)
    return uri if path is None else sqlite.address(path)


def load(timeout_s: float = DEFAULTS["timeout_s"]) -> None:
    """Import MLflow with waiting times that suit a training, telemetry off and its chatter silenced.

    Values that the user set in the environment win.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # what failed is replayed from the run's file
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(math.ceil(timeout_s)))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow  # noqa: F401

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of a busy SQLite file
        logging.getLogger("alembic").setLevel(logging.WARNING)


def prepare(uri: str, stop: threading.Event | None = None) -> None:
    """Make the embedded store ready, so that one that cannot be used is known at once.

    Safe for any number of processes at once; imports no MLflow into the caller. A store that cannot be prepared is
    one warning: the runs keep their numbers in their own files.

    Args:
        stop: becomes true when nobody waits for the store any more.
    """
    try:
        create(resolve(uri), stop=stop)
    except Exception as problem:
        log.warning("tracking: %s cannot be prepared (%s); runs go on without it", public(uri), problem)


def create(uri: str, wait_s: float = CREATE_S, stop: threading.Event | None = None) -> None:
    """Create the SQLite file of ``uri`` if there is none: tables, then WAL, then moved into place. Others: nothing.

    One process makes it, others wait.

    Args:
        wait_s: seconds after which a machine counts as too busy.
        stop: becomes true when nobody waits for the store any more; the call then returns without it.

    Raises:
        TrackingError: MLflow could not create it, or not in time.
        OSError: no access.
    """
    path = sqlite.path_of(uri)
    if path is None or _is_there(path):
        return
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    stop, deadline, lock = stop or threading.Event(), time.monotonic() + wait_s, FileLock(f"{path}.lock")
    while not stop.is_set() and not _is_there(path):
        try:
            with lock.acquire(timeout=0.5):
                if not _is_there(path):
                    _create(path, deadline, stop)
        except Timeout:
            _in_time(path, deadline)


def _is_there(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _in_time(path: Path, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TrackingError(
            f"MLflow's tables in {path} take very long to be made, here or by another process; is the machine busy? "
            f"python -m kdexp tracking prepare uri={sqlite.address(path)} makes them at a quieter time"
        )


def _create(path: Path, deadline: float, stop: threading.Event) -> None:
    """Have a process make the store aside: nothing of MLflow stays open on the file, and the parent stays light."""
    for kind in ("*.tmp*", "new*"):  # of a process that was killed here; the second was an older kdexp's
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.{kind}"):
            leftover.unlink()
    with files.fresh(path) as aside, tempfile.TemporaryFile("w+") as said:
        code = f"from kdexp.tracking import mlflow_store; mlflow_store._migrate({str(aside)!r})"
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, cwd=_ROOT
        )
        try:
            while child.poll() is None:
                _in_time(path, deadline)
                if stop.wait(0.05):
                    raise TrackingError("nobody waits for it any more")
            if child.returncode:
                said.seek(0)
                raise TrackingError(f"mlflow could not create {path}: {(said.read().strip() or '?').splitlines()[-1]}")
            connection = sqlite3.connect(aside)
            connection.execute("pragma journal_mode=wal")
            connection.close()
        finally:
            child.kill()
            child.wait()
            for beside in path.parent.glob(f"{glob.escape(aside.name)}-*"):  # its journal
                beside.unlink(missing_ok=True)


_ROOT = Path(__file__).resolve().parents[2]  # so that the child finds this package however it was started


def _migrate(path: str) -> None:
    """Be the process that makes a store; it leaves nothing behind when the one that waits for it is gone."""

    def watch() -> None:
        os.read(0, 1)
        for leftover in Path(path).parent.glob(f"{glob.escape(Path(path).name)}*"):
            leftover.unlink(missing_ok=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    load()
    place = str(Path(path).parent)
    if quote(place) == place:  # MLflow keeps artifacts of its experiment "Default" below the current folder,
        os.chdir(place)  # and cannot be made in one whose signs its addresses have to quote
    _client(sqlite.address(path)).search_experiments(max_results=1)


def _client(uri: str) -> MlflowClient:
    """Make a client, and take the empty folder away that MLflow makes where a quoted address reads like a path."""
    from mlflow import MlflowClient

    client, path = MlflowClient(uri), sqlite.path_of(uri)
    if path is not None and str(path) != uri.removeprefix(sqlite.SCHEME):
        client.search_experiments(max_results=1)  # a store is opened by its first question
        with contextlib.suppress(OSError):
            os.removedirs(Path(uri.removeprefix(sqlite.SCHEME)).parent)
    return client


class Store:
    """One tracking store as seen by one process; every call may raise, callers guard.

    Args:
        uri: resolved URI.
        timeout_s: seconds that one request to a server may take.
    """

    def __init__(self, uri: str, timeout_s: float = DEFAULTS["timeout_s"]) -> None:
        create(uri)
        path = sqlite.path_of(uri)
        if path is not None:
            moved.follow(path)
        load(timeout_s)
        self.uri = uri
        self.client = _client(uri)
        self._parents: dict[str, tuple[str, str]] = {}

    def lock(self, study_dir: Path) -> BaseFileLock:
        """The lock under which experiments and runs are looked up and created."""
        from filelock import FileLock

        path = sqlite.path_of(self.uri)
        place = path.with_name(path.name + ".lock") if path else study_dir / ".tracking.lock"
        return FileLock(place, timeout=LOCK_S)

    def study(self, name: str, study_dir: Path) -> tuple[str, str]:
        """``(experiment id, parent run id)`` of a study, created when missing. Call it under :meth:`lock`."""
        if name not in self._parents:
            experiment = self.experiment(name, study_dir)
            parent = self.find(experiment, "study", name)
            if parent is None:
                tags = {"kdexp.kind": "study", "kdexp.name": name, "kdexp.study": name}
                parent = self.client.create_run(experiment, run_name=name, tags=tags)
                self.client.set_terminated(parent.info.run_id)  # a bracket around its runs, never "running" itself
            self._parents[name] = experiment, parent.info.run_id
        return self._parents[name]

    def experiment(self, name: str, study_dir: Path) -> str:
        """Id of an experiment, created when missing, with artifacts beside the store. Call it under :meth:`lock`."""
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            return self.client.create_experiment(name, self._artifacts(name, study_dir), pages.KIND)
        if experiment.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment {name!r} is in the store's trash: bring it back with "
                f"MLFLOW_TRACKING_URI={public(self.uri)} mlflow experiments restore --experiment-id "
                f"{experiment.experiment_id}, or choose another study name"
            )
        for key, value in pages.KIND.items():  # an older kdexp's have none
            if key not in experiment.tags:
                self.client.set_experiment_tag(experiment.experiment_id, key, value)
        return experiment.experiment_id

    def _artifacts(self, name: str, study_dir: Path) -> str | None:
        if urlsplit(self.uri).scheme in _REMOTE:
            return None  # the server knows
        path = sqlite.path_of(self.uri)
        return ((path.parent if path else study_dir.resolve().parent) / ARTIFACTS / name).as_uri()

    def find(self, experiment: str, kind: str, name: str) -> Run | None:
        """The oldest active run of that kind (``study`` or ``run``) and name."""
        quote = '"' if "'" in name else "'"
        where = f"tags.`kdexp.kind` = '{kind}' and tags.`kdexp.name` = {quote}{name}{quote}"
        found = self.client.search_runs([experiment], where, max_results=1, order_by=["attributes.start_time ASC"])
        return found[0] if found else None
