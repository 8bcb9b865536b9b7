"""A run's ``status.json``: what its process says of itself, and what is true of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from kdexp.common import files
from kdexp.common.locks import is_locked

STATUS = "status.json"
LOCK = ".lock"
"""In a run's folder: held by the process that carries the run out."""


def read_status(run_dir: Path) -> dict[str, Any]:
    """Return what a run's process has written of itself; empty before its first attempt.

    Raises:
        ValueError: the file is damaged; it is named.
    """
    return files.read_json(run_dir / STATUS) or {}


def write_status(run_dir: Path, status: dict[str, Any]) -> None:
    """Write ``state``, ``pid``, ``host``, ``started``, ``updated``, ``attempt`` and ``error`` of a run, atomically."""
    files.write_json(run_dir / STATUS, status)


def state(run_dir: Path) -> str:
    """Return ``new``, ``running``, ``finished``, ``failed`` or ``interrupted``.

    A run counts as running only while a process holds its lock, so one that was killed reads as interrupted.

    Raises:
        ValueError: ``status.json`` is damaged; it is named.
    """
    status = read_status(run_dir)
    stated = str(status.get("state", "new"))
    return "interrupted" if stated == "running" and not _is_alive(run_dir, status) else stated


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
    except (ProcessLookupError, KeyError, ValueError, TypeError):
        return False
    return True
