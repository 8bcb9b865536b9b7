"""Where the view lives: tracking URIs, the embedded SQLite store, experiments, parent and child runs.

Traps of MLflow 3.17 that are guarded here:

- Two processes that first touch a fresh SQLite file break it for ever. :func:`create` builds the file aside, in its
  own process and under a file lock, and moves it into place: a file that exists is complete.
- The defaults wait four minutes for a dead server. :func:`load` lowers them before MLflow is imported.
- SQLite stores put artifacts under the current directory. Experiments are created with a place beside the store.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kdexp.common.redact import public

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
LOCK_S = 60.0  # how long to wait for another process that creates a store, an experiment or a parent run
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
        scheme = urlsplit(str(uri or "")).scheme.split("+")[0]
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
    path = sqlite_path(uri)
    return uri if path is None else f"sqlite:///{path}"


def sqlite_path(uri: str) -> Path | None:
    """Absolute path of the file behind a ``sqlite:///`` URI, None for other stores."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(os.path.abspath(os.path.expanduser(uri.removeprefix("sqlite:///").split("?")[0])))


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


def prepare(uri: str) -> None:
    """Make the embedded store ready before runs start, so that one that cannot be used is known at once.

    Safe for any number of processes at once; imports no MLflow into the caller. A store that cannot be prepared is
    one warning: the runs keep their numbers in their own files.
    """
    try:
        create(resolve(uri))
    except Exception as problem:
        log.warning("tracking: %s cannot be prepared (%s); runs go on without it", public(uri), problem)


def create(uri: str) -> None:
    """Create the SQLite file of ``uri`` if there is none: tables, then WAL, then moved into place. Others: nothing.

    Raises:
        TrackingError: MLflow could not create it.
        OSError, filelock.Timeout: no access, or another process holds the lock for more than a minute.
    """
    path = sqlite_path(uri)
    if path is None or (path.exists() and path.stat().st_size > 0):
        return
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=LOCK_S):
        if path.exists() and path.stat().st_size > 0:
            return
        fresh = path.with_name(f".{path.name}.new")
        for leftover in path.parent.glob(f"{fresh.name}*"):  # of a process that was killed here
            leftover.unlink()
        # A process of its own: nothing of MLflow stays open on the file, and the parent stays light and safe to fork.
        code = f"from kdexp.tracking import mlflow_store; mlflow_store._migrate({str(fresh)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LOCK_S, cwd=_ROOT)
        if done.returncode:
            raise TrackingError(f"mlflow could not create {path}: {(done.stderr.strip() or '?').splitlines()[-1]}")
        with sqlite3.connect(fresh) as connection:
            connection.execute("pragma journal_mode=wal")
        connection.close()
        os.replace(fresh, path)


_ROOT = Path(__file__).resolve().parents[2]  # so that the child finds this package however it was started


def _migrate(path: str) -> None:
    load()
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)


class Store:
    """One tracking store as seen by one process; every call may raise, callers guard.

    Args:
        uri: resolved URI.
        timeout_s: seconds that one request to a server may take.
    """

    def __init__(self, uri: str, timeout_s: float = DEFAULTS["timeout_s"]) -> None:
        create(uri)
        load(timeout_s)
        from mlflow import MlflowClient

        self.uri = uri
        self.client: MlflowClient = MlflowClient(uri)
        self._parents: dict[str, tuple[str, str]] = {}

    def lock(self, study_dir: Path) -> BaseFileLock:
        """The lock under which experiments and runs are looked up and created."""
        from filelock import FileLock

        path = sqlite_path(self.uri)
        place = path.with_name(path.name + ".lock") if path else study_dir / ".tracking.lock"
        return FileLock(place, timeout=LOCK_S)

    def study(self, name: str, study_dir: Path) -> tuple[str, str]:
        """``(experiment id, parent run id)`` of a study, created when missing. Call it under :meth:`lock`."""
        if name not in self._parents:
            experiment = self._experiment(name, study_dir)
            parent = self.find(experiment, "study", name)
            if parent is None:
                tags = {"kdexp.kind": "study", "kdexp.name": name, "kdexp.study": name}
                parent = self.client.create_run(experiment, run_name=name, tags=tags)
                self.client.set_terminated(parent.info.run_id)  # a bracket around its runs, never "running" itself
            self._parents[name] = experiment, parent.info.run_id
        return self._parents[name]

    def _experiment(self, name: str, study_dir: Path) -> str:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            return self.client.create_experiment(name, artifact_location=self._artifacts(name, study_dir))
        if experiment.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment {name!r} is in the store's trash: bring it back with "
                f"MLFLOW_TRACKING_URI={public(self.uri)} mlflow experiments restore --experiment-id "
                f"{experiment.experiment_id}, or choose another study name"
            )
        return experiment.experiment_id

    def _artifacts(self, name: str, study_dir: Path) -> str | None:
        if urlsplit(self.uri).scheme in _REMOTE:
            return None  # the server knows
        path = sqlite_path(self.uri)
        return ((path.parent if path else study_dir.resolve().parent) / "mlartifacts" / name).as_uri()

    def find(self, experiment: str, kind: str, name: str) -> Run | None:
        """The oldest active run of that kind (``study`` or ``run``) and name."""
        quote = '"' if "'" in name else "'"
        where = f"tags.`kdexp.kind` = '{kind}' and tags.`kdexp.name` = {quote}{name}{quote}"
        found = self.client.search_runs([experiment], where, max_results=1, order_by=["attributes.start_time ASC"])
        return found[0] if found else None
