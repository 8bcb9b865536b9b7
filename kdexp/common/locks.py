"""Whether a process holds a lock."""

from __future__ import annotations

from pathlib import Path


def is_locked(path: Path) -> bool:
    """Tell whether some process holds a lock file at this moment.

    Locks are the operating system's, so one whose holder was killed is free. Asking never creates the file.
    """
    from filelock import FileLock, Timeout

    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
