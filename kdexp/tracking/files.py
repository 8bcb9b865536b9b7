"""What a run leaves on disk, as far as tracking is concerned: its numbers, its facts, and a note of what was shown."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from kdexp.common import files, results
from kdexp.common import status as run_status
from kdexp.config.identity import named

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
    """Append-only writer of ``metrics.jsonl``.

    A line is one write to a file opened for appending, so the system keeps lines of several threads apart. One that a
    crash cut short is closed off with a newline when the file is opened again, so that it spoils no other line.

    Raises:
        OSError: the file cannot be written. That is the run's own record, so it is not swallowed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
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
        with files.room(self.path, len(line)):
            written = os.write(self._file, line)
        if written != len(line):
            raise files.full(self.path, len(line))

    def system_samples(self) -> int:
        """Number of machine-load lines that earlier attempts left, so that a resumed run goes on counting."""
        return self.path.read_bytes().count(f'"stage": "{SYSTEM}"'.encode())

    def close(self) -> None:
        """Bring the file to the disk and close it."""
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


def first_shown(path: Path, start: int) -> Iterator[tuple[int, list[Point]]]:
    """The lines from byte ``start`` as :func:`lines` has them, without points that an earlier line has already.

    A resumed run repeats the steps since its checkpoint; of points with one name and step the first counts. What stands
    before ``start`` is read again each time: that is milliseconds, and nobody has to remember what was sent.
    """
    known: set[tuple[str, int]] = set()
    for end, points in lines(path):
        fresh = [point for point in points or () if (point.name, point.step) not in known]
        known |= {(point.name, point.step) for point in fresh}
        if end > start:
            yield end, fresh


def first_line(path: Path) -> str:
    """A short hash of the file's first line: tells the file of a run that was started afresh from its predecessor's."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        line = file.readline()
    return hashlib.sha256(line).hexdigest()[:12] if line.endswith(b"\n") else ""


def write_marker(run_dir: Path, **changes: Any) -> None:
    """Change fields of ``tracking.json``, in one step for readers.

    It is for people, and spares a look at the store; what the store has is told by the store (:mod:`.view`).
    Fields: ``uri``, ``experiment``, ``run_id``, ``position`` (bytes of ``metrics.jsonl`` that the
    store has), ``stamp`` (of the facts that it has), ``state`` (``synced`` or ``behind``), ``error``.
    """
    fields = ("uri", "experiment", "run_id", "position", "stamp", "state", "error")
    marker = {**dict.fromkeys(fields), **files.read_note(run_dir / MARKER), **changes}
    files.write_record(run_dir / MARKER, marker)


def milliseconds(when: Any) -> int | None:
    """Milliseconds since 1970 of unix seconds or an ISO time; None for anything else."""
    if isinstance(when, (int, float)) and not isinstance(when, bool):
        return round(when * 1000)
    try:
        return round(datetime.fromisoformat(when).timestamp() * 1000)
    except (TypeError, ValueError):
        return None


class Facts:
    """Who a run is and how far it got, read from its folder ``<study>/<name>`` when asked, and once each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name, self.study = folder, folder.name, folder.parent.name

    @cached_property
    def status(self) -> dict[str, Any]:
        """Content of ``status.json``."""
        return run_status.read_status(self.folder)

    @cached_property
    def result(self) -> dict[str, Any]:
        """Content of ``result.json``; empty while there is none that can be read."""
        try:
            return results.read(self.folder) or {}
        except (OSError, files.Damaged):
            return {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config that the run saved, or what of it can be read."""
        import yaml

        try:
            saved = yaml.safe_load((self.folder / ".hydra" / "config.yaml").read_text())
        except (OSError, yaml.YAMLError):
            saved = None
        return {**(saved if isinstance(saved, dict) else {}), **self.result.get("science", {})}

    @cached_property
    def state(self) -> str:
        """``finished``, ``failed``, ``interrupted`` or ``running``; without a word from the run it is interrupted."""
        known = run_status.state(self.folder) if self.status else "new"
        return "finished" if self.result else "interrupted" if known == "new" else known

    @property
    def labels(self) -> dict[str, str]:
        """Short names of teacher, student, objective, mapping, init and task."""
        return {**named(self.config), **self.result.get("labels", {})}

    @property
    def stamp(self) -> str:
        """A hash of what there is to show beside the numbers; another one means: there is news."""
        parts = (self.state, self.status.get("attempt"), self.status.get("error"), self.result)
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]

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
