"""A run's ``status.json``: what its process says of itself, and what is true of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from kdexp.common import files, results
from kdexp.common.files import Damaged
from kdexp.common.locks import is_locked

STATUS = "status.json"
LOCK = ".lock"
"""In a run's folder: held by the process that carries the run out."""
SHAPE = {"state": str}


def read_status(run_dir: Path) -> dict[str, Any]:
    """Return what a run's process has written of itself; empty before its first attempt, or if it is damaged."""
    try:
        return _status(run_dir) or {}
    except Damaged:
        return {}


def write_status(run_dir: Path, status: dict[str, Any]) -> None:
    """Write ``state``, ``pid``, ``host``, ``started``, ``updated``, ``attempt`` and ``error`` of a run, atomically."""
    files.write_record(run_dir / STATUS, status)


def state(run_dir: Path) -> str:
    """Return ``new``, ``running``, ``finished``, ``failed``, ``interrupted`` or ``damaged``.

    A run is finished if its result is there, and running only while a process holds its lock: one that was killed reads
    as interrupted. A run with a damaged file (:func:`damage`) is carried out again by whoever comes next.
    """
    try:
        if results.read(run_dir) is not None:
            return "finished"
        status = _status(run_dir) or {}
    except Damaged:
        return "running" if is_locked(run_dir / LOCK) else "damaged"
    stated = str(status.get("state", "new"))
    gone = stated == "finished" or (stated == "running" and not _is_alive(run_dir, status))
    return "interrupted" if gone else stated


def damage(run_dir: Path) -> Damaged | None:
    """Return what is wrong with a run's own files, if anything: its result, or before that its status."""
    try:
        if results.read(run_dir) is None:
            _status(run_dir)
    except Damaged as error:
        return error
    return None


def mend(run_dir: Path) -> list[str]:
    """Set a run's damaged files aside, and say so; asked by the process that holds the run's lock."""
    sentences = []
    for read, then in ((results.read, "the run is carried out again"), (_status, "it is written anew")):
        try:
            read(run_dir)
        except Damaged as error:
            sentences.append(f"{error}: it is now {files.set_aside(error.path).name}, and {then}")
    return sentences


def _status(run_dir: Path) -> dict[str, Any] | None:
    return files.read_record(run_dir / STATUS, SHAPE)


def _is_alive(run_dir: Path, status: dict[str, Any]) -> bool:
    """Ask the lock; only where there is none (its file does not travel) the process's number, on its own machine."""
    if (run_dir / LOCK).exists():
        return is_locked(run_dir / LOCK)
    if status.get("host") not in (None, socket.gethostname()):
        return False
    try:
        os.kill(int(status["pid"]), 0)
    except PermissionError:
        return True  # somebody else's, but there
    except (ProcessLookupError, KeyError, ValueError, TypeError, OverflowError):
        return False
    return True
