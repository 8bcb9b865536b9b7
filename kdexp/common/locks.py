"""Locks of the operating system, which vanish with their holder: whether one is held, waiting for one, making once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from kdexp.common import turns
from kdexp.common.files import Interrupted

T = TypeVar("T")


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


@contextmanager
def hold(path: Path, timeout: float, stop: Callable[[], bool], busy: Callable[[], str]) -> Iterator[bool]:
    """Hold a lock file, waiting in slices, so that a person's stop is heard; yields whether it had to be waited for.

    Args:
        path: the file; its folder is made.
        timeout: seconds to wait for another process.
        stop: becomes true when the caller no longer wants to wait.
        busy: called once when there is something to wait for; returns what it is, for the error.

    Raises:
        TimeoutError: another process has held it for longer than ``timeout``.
        Interrupted: ``stop`` became true while waiting.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock, deadline, what = FileLock(path), time.monotonic() + timeout, ""
    while True:
        try:
            with turns.aside() if what else nullcontext():
                lock.acquire(timeout=0.3 if what else 0, poll_interval=0.1)
            break
        except Timeout as error:
            what = what or busy()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{what} after {timeout:.0f} s: raise runtime.lock_timeout_s, or stop that process."
                ) from error
            if stop():
                raise Interrupted(f"stopped while waiting: {what}; the same command continues") from error
    try:
        yield bool(what)
    finally:
        lock.release()


def once(entry: Path, load: Callable[[Path], T | None], make: Callable[[], None]) -> T:
    """Return what ``load`` finds at ``entry``, made if it is missing; one process makes it, the others wait.

    Raises:
        OSError: what was made cannot be read back.
    """
    from filelock import FileLock

    kept = load(entry)
    if kept is None:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_suffix(".lock")):
            kept = load(entry)
            if kept is None:
                make()
                kept = load(entry)
    if kept is None:
        raise OSError(f"{entry} cannot be read back: is the disk full or shared without locks?")
    return kept
