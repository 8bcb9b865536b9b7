"""Features of frozen teachers on disk: flat files that can always be made again, with a checksum for each part.

Layout below ``<store>/cache/teachers/``: a folder for each teacher on some examples, and in it for each feature
``<name>.bin`` (its numbers, one example after another), ``<name>.json`` (what they are; the sha256 of each part, null =
not written yet) and ``<name>.lock``, held by the process that writes. A part is one batch of the pass that made it, so
that a killed process loses seconds, and a damaged part alone is made again. What a process reads it holds by a shared
lock on the ``.bin``; nothing that is held is dropped.

``train/teacher_cache.py`` fills and reads them; what they mean is its business.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from kdexp.common import files

log = logging.getLogger("kdexp")

SYNC_S = 5.0
"""Seconds between two times that written parts are noted: what a killed process loses."""


def folder(store: Path) -> Path:
    """Return the place of teachers' features in a store."""
    return store / "cache" / "teachers"


@dataclass(frozen=True)
class FeatureFile:
    """One feature of one teacher on some examples.

    Attributes:
        index: the file that says what there is of it.
    """

    index: Path

    @classmethod
    def of(cls, place: Path, name: str) -> FeatureFile:
        """Return the file of a feature in the folder of its teacher and examples."""
        return cls(place / f"{quote(name, safe='')}.json")

    @property
    def name(self) -> str:
        """The feature's name."""
        return unquote(self.index.stem)

    @property
    def values(self) -> Path:
        """The file of its numbers."""
        return self.index.with_suffix(".bin")

    @property
    def lock(self) -> Path:
        """What the process that writes it holds."""
        return self.index.with_suffix(".lock")

    def read(self) -> dict[str, Any] | None:
        """Return what is noted: ``bounds`` (bytes, parts + 1), ``sha256`` (one a part), ``about``; None = nothing.

        A damaged note is as good as none; the log names it.
        """
        try:
            note = files.read_json(self.index)
        except ValueError:
            log.warning("%s is damaged: the feature is made anew", self.index)
            return None
        return note if isinstance(note, dict) and {"bounds", "sha256", "about"} <= note.keys() else None

    def hold(self) -> BinaryIO | None:
        """Open the numbers for reading, so that nobody drops them while the file stays open; None if there are none."""
        try:
            file = self.values.open("rb")
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            os.utime(self.index)  # when it was used last
        return file

    def damaged(self, note: dict[str, Any], file: BinaryIO) -> list[int]:
        """Return the parts that are noted and not what was written."""
        wrong = []
        for part, expected in enumerate(note["sha256"]):
            start, end = note["bounds"][part : part + 2]
            file.seek(start)
            if expected is not None and hashlib.sha256(file.read(end - start)).hexdigest() != expected:
                wrong.append(part)
        return wrong

    def drop(self) -> int:
        """Delete it unless a process writes or reads it; returns the bytes that this frees."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.lock, timeout=0), ExitStack() as used:
                freed = 0
                if self.values.exists():
                    file = used.enter_context(self.values.open("rb"))
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    freed = self.values.stat().st_size
                self.index.unlink(missing_ok=True)
                self.values.unlink(missing_ok=True)
                return freed
        except (Timeout, BlockingIOError):
            return 0


class Writing:
    """Writes parts of a feature; whoever makes one holds its lock.

    Args:
        feature: the file.
        bounds: where each part begins, in bytes, and the end of the last one.
        about: what a reader must know.
        kept: checksums of the parts that are there already; None = nothing is.
    """

    def __init__(
        self, feature: FeatureFile, bounds: Sequence[int], about: dict[str, Any], kept: Sequence[str | None] | None
    ) -> None:
        self.feature = feature
        self.note: dict[str, Any] = {
            "name": feature.name,
            "holder": f"process {os.getpid()} on {socket.gethostname()}",
            "about": about,
            "bounds": [int(bound) for bound in bounds],
            "sha256": [None] * (len(bounds) - 1) if kept is None else list(kept),
        }
        feature.values.parent.mkdir(parents=True, exist_ok=True)
        self.file = feature.values.open("wb" if kept is None else "r+b")
        self.file.truncate(self.note["bounds"][-1])
        self.noted = 0.0
        self._note()

    def write(self, part: int, data: bytes) -> None:
        """Write one part whole."""
        start, end = self.note["bounds"][part : part + 2]
        assert len(data) == end - start, f"part {part} of {self.feature.name} has {len(data)} bytes, not {end - start}"
        self.file.seek(start)
        self.file.write(data)
        self.note["sha256"][part] = hashlib.sha256(data).hexdigest()
        if time.monotonic() - self.noted > SYNC_S:
            self._note()

    def _note(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        files.write_json(self.feature.index, self.note)
        self.noted = time.monotonic()

    def __enter__(self) -> Writing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._note()
        finally:
            self.file.close()


def everything(root: Path) -> list[FeatureFile]:
    """Return all features below a folder of them, the one that was used longest ago first."""
    return [FeatureFile(path) for path in sorted(root.glob("*/*.json"), key=lambda path: path.stat().st_mtime)]


def size(root: Path) -> int:
    """Return the bytes that all features below a folder take."""
    return sum(path.stat().st_size for path in root.glob("*/*.bin"))


def make_room(root: Path, need: int, most: int) -> int:
    """Drop what was used longest ago until ``need`` bytes more are within ``most``, or all the rest is in use.

    Returns:
        The bytes that were freed.
    """
    freed, there = 0, size(root)
    for feature in everything(root) if there + need > most else []:
        if there - freed + need <= most:
            break
        freed += feature.drop()
    return freed
