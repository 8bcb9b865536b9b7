"""What a run leaves on disk, as far as tracking is concerned: metrics, marker, and the facts about the run."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.common import files
from kdexp.common.locks import is_locked

if TYPE_CHECKING:
    from collections.abc import Iterator

METRICS = "metrics.jsonl"
MARKER = "tracking.json"
SYSTEM = "system"  # the stage under which machine load is written


@dataclass(frozen=True)
class Point:
    """One number of one metric; ``milliseconds`` since 1970 as the file has them, never the time of sending."""

    name: str
    value: float
    step: int
    milliseconds: int


class MetricsFile:
    """Append-only writer of ``metrics.jsonl``; one ``write`` a line, safe between threads.

    A line that a crash cut short is closed off with a newline when the file is opened again, so that it spoils no
    other line.

    Raises:
        OSError: the file cannot be written. That is the run's own record, so it is not swallowed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def append(self, stage: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Write one line: ``{"t", "stage", "epoch", "step", "values"}``."""
        record = {
            "t": round(time.time(), 3),
            "stage": stage,
            "epoch": epoch,
            "step": int(step),
            "values": {name: float(value) for name, value in values.items()},
        }
        line = (json.dumps(record) + "\n").encode()
        with self._lock:
            written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"{self.path}: only {written} of {len(line)} bytes could be written; is the disk full?")

    def system_samples(self) -> int:
        """Number of machine-load lines that earlier attempts left, so that a resumed run goes on counting."""
        return self.path.read_bytes().count(f'"stage": "{SYSTEM}"'.encode())

    def close(self) -> None:
        """Bring the file to the disk and close it."""
        with self._lock:
            if self._file >= 0:
                os.fsync(self._file)
                os.close(self._file)
                self._file = -1


def lines(path: Path, start: int = 0) -> Iterator[tuple[int, list[Point] | None]]:
    """Complete lines from byte ``start``: ``(offset after the line, its points)``; None for a line that is no record.

    A last line without a newline is still being written (or was cut by a crash) and is left for the next time.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            yield start, _points(line)


def _points(line: bytes) -> list[Point] | None:
    try:
        record = json.loads(line)
        prefix, step, when = record["stage"], int(record["step"]), round(record["t"] * 1000)
        return [Point(f"{prefix}/{k}", float(v), step, when) for k, v in record["values"].items()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def first_line(path: Path) -> str:
    """A short hash of the file's first line: tells the file of a run that was started afresh from its predecessor's."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        line = file.readline()
    return hashlib.sha256(line).hexdigest()[:12] if line.endswith(b"\n") else ""


def read_json(path: Path) -> dict[str, Any]:
    """The file's object, or an empty one when there is none that can be read."""
    try:
        content = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_marker(run_dir: Path, **changes: Any) -> None:
    """Change fields of ``tracking.json``, in one step for readers.

    Fields: ``uri``, ``experiment``, ``run_id``, ``parent_run_id``, ``position`` (bytes of ``metrics.jsonl`` that the
    store has), ``state`` (``synced`` or ``behind``), ``error``.
    """
    fields = ("uri", "experiment", "run_id", "parent_run_id", "position", "state", "error")
    marker = {**dict.fromkeys(fields), **read_json(run_dir / MARKER), **changes}
    files.write_json(run_dir / MARKER, marker)


def milliseconds(when: Any) -> int | None:
    """Milliseconds since 1970 of unix seconds or an ISO time; None for anything else."""
    if isinstance(when, (int, float)) and not isinstance(when, bool):
        return round(when * 1000)
    try:
        return round(datetime.fromisoformat(when).timestamp() * 1000)
    except (TypeError, ValueError):
        return None


@dataclass
class Facts:
    """Who a run is and how far it got, read from its folder.

    Attributes:
        folder: the run's folder; study and name are its parents' names unless said otherwise.
        config: the resolved config, or what of it could be read.
        status: content of ``status.json``.
        result: content of ``result.json``, empty while there is none.
        known: the run's state where the caller knows better than the files; empty otherwise.
    """

    folder: Path
    study: str
    name: str
    config: dict[str, Any]
    status: dict[str, Any]
    result: dict[str, Any]
    known: str = ""

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any] | None = None, **known: str) -> Facts:
        """Read a run's folder.

        Args:
            folder: ``multirun/<study>/<name>``.
            config: the resolved config, when the caller has it; else the saved one and the result's science part.
            known: ``study``, ``name`` and ``known`` (the state), where the caller knows better than the folder.
        """
        result = read_json(folder / "result.json")
        if config is None:
            config = {**_saved_config(folder), **result.get("science", {})}
        names = {"study": folder.parent.name, "name": folder.name, **known}
        return cls(folder=folder, config=config, status=read_json(folder / "status.json"), result=result, **names)

    @property
    def labels(self) -> dict[str, str]:
        """Short names of teacher, student, objective, mapping, init and task."""
        groups = ("teacher", "student", "objective", "mapping", "init", "task")
        named = {g: self.config[g].get("name") for g in groups if isinstance(self.config.get(g), dict)}
        return {g: str(n) for g, n in {**named, **self.result.get("labels", {})}.items() if n is not None}

    @property
    def state(self) -> str:
        """``finished``, ``failed``, ``interrupted`` or ``running``; a run whose process is gone is interrupted."""
        if self.known or self.result:
            return self.known or "finished"
        state = str(self.status.get("state", "interrupted"))
        return "interrupted" if state == "running" and not self._alive() else state

    @property
    def started(self) -> int | None:
        """Start of the run's first attempt that is known, in ms."""
        first = next(iter(lines(self.folder / METRICS)), None)
        times = [milliseconds(self.status.get("started")), first[1][0].milliseconds if first and first[1] else None]
        return min((t for t in times if t), default=None)

    @property
    def ended(self) -> int | None:
        """End of the run, in ms."""
        return milliseconds(self.result.get("finished")) or milliseconds(self.status.get("updated"))

    def _alive(self) -> bool:
        """A dead process, or a run's lock that nobody holds, means no: a number alone may be another process's."""
        if self.status.get("host") in (None, socket.gethostname()):
            try:
                os.kill(int(self.status["pid"]), 0)
            except PermissionError:
                pass  # somebody else's, but there
            except (ProcessLookupError, KeyError, ValueError, TypeError):
                return False
        return is_locked(self.folder / ".lock") if (self.folder / ".lock").exists() else True


def _saved_config(folder: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}
