"""The store: finished stages, addressed by their keys, shared by all runs and processes.

Layout below the root: ``<key>/`` a finished stage (``meta.json`` and its files), ``work/<key>/`` one being built or
left by a killed process (it is continued), ``locks/<key>.lock`` held by the process that builds.

``python -m kdexp store list | show KEY | verify | gc`` is for people.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdexp.common import files
from kdexp.common.files import Interrupted
from kdexp.store.stage import Stage

SCRAP = (
    "checkpoint",
    "checkpoint.new",
    "checkpoint.old",
    "best.safetensors",
    "best.safetensors.new",
    "holder.json",
    "pushed.json",
)
"""What a phase leaves behind while it runs; no part of its result."""

RECORD = ("predictions/",)
"""What of a finished stage's files belongs to its record: it stays when the weights go."""


@dataclass(frozen=True)
class Finished:
    """A finished stage on disk."""

    folder: Path
    meta: dict[str, Any]

    @property
    def whole(self) -> bool:
        """False if only the record was kept (:meth:`Store.drop_weights`)."""
        return not self.meta.get("dropped")

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage's action returned."""
        return self.meta["summary"]


class Store:
    """Finished stages below one folder.

    Args:
        root: the folder; made when first written to.
        timeout: seconds to wait for a stage that another process builds.
    """

    def __init__(self, root: Path, timeout: float = 86400.0):
        self.root = Path(root).expanduser().absolute()
        self.timeout = timeout

    def get(self, key: str, verify: bool = True) -> Finished | None:
        """Return a finished stage, or None.

        Raises:
            ValueError: a file of it is missing or damaged; it is named.
        """
        folder = self.root / key
        meta = files.read_json(folder / "meta.json")
        if meta is None:
            return None
        for name, expected in (meta["files"] if verify else {}).items():
            path = folder / name
            if not path.is_file() or files.checksum(path) != expected:
                raise ValueError(
                    f"{path} is damaged or missing (its sha256 is not the one noted when it was written): delete the "
                    f"folder {folder}; the same command builds it again."
                )
        return Finished(folder, meta)

    def build(
        self,
        stage: Stage,
        action: Callable[[Path], dict[str, Any]],
        say: Callable[[str], None],
        stop: Callable[[], bool] = lambda: False,
        fetch: Callable[[Path], Finished | None] | None = None,
    ) -> tuple[Finished, bool]:
        """Return a finished stage, carrying it out if it is not there; the bool says whether it was there already.

        One process builds, others wait. A killed builder leaves its work folder; the next one continues there.
        The lock is the operating system's, so it vanishes with its holder: there are no stale locks. A stage of which
        only the record was kept (:meth:`drop_weights`) is built again.

        Args:
            stop: becomes true when the caller no longer wants to wait.
            fetch: asked once nobody else is at the stage, for what there is elsewhere; it may fill the work folder.

        Raises:
            TimeoutError: another process has held the lock for longer than ``timeout``.
            Interrupted: ``stop`` became true while waiting.
        """
        from filelock import FileLock, Timeout

        found = self.get(stage.key)
        if found is not None and found.whole:
            return found, True
        lock_path = self.root / "locks" / f"{stage.key}.lock"
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"stage {stage.name} ({stage.key[:12]}) is being built by {self._holder(stage.key)}; waiting")
            self._wait(lock, stage, stop)
        try:
            work = self.root / "work" / stage.key
            found = fetch(work) if fetch else self.get(stage.key)
            if found is not None and found.whole:
                return found, True
            work.mkdir(parents=True, exist_ok=True)
            files.write_json(work / "holder.json", {"pid": os.getpid(), "host": socket.gethostname()})
            started = time.time()
            return self._commit(stage, work, action(work), started), False
        finally:
            lock.release()

    def _wait(self, lock: Any, stage: Stage, stop: Callable[[], bool]) -> None:
        """Wait for a lock in slices, so that a person's stop is heard."""
        from filelock import Timeout

        deadline = time.monotonic() + self.timeout
        while not stop():
            try:
                lock.acquire(timeout=0.3, poll_interval=0.1)
                return
            except Timeout as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"stage {stage.name} ({stage.key[:12]}) is still built by {self._holder(stage.key)} after "
                        f"{self.timeout:.0f} s: raise runtime.lock_timeout_s, or stop that process."
                    ) from error
        raise Interrupted(f"stopped while waiting for stage {stage.name}; the same command continues")

    def _holder(self, key: str) -> str:
        held = files.read_json(self.root / "work" / key / "holder.json") or {}
        return f"process {held.get('pid', '?')} on {held.get('host', '?')}"

    def _commit(self, stage: Stage, work: Path, summary: dict[str, Any], started: float) -> Finished:
        """Turn a work folder into a finished stage in one rename."""
        for scrap in (work / name for name in SCRAP):
            shutil.rmtree(scrap, ignore_errors=True) if scrap.is_dir() else scrap.unlink(missing_ok=True)
        found = sorted(p for p in work.rglob("*") if p.is_file())
        meta = {
            "key": stage.key,
            "name": stage.name,
            "action": stage.action,
            "settings": stage.settings,
            "parents": {role: parent.key for role, parent in stage.parents.items()},
            "shared": stage.shared,
            "summary": summary,
            "seconds": round(time.time() - started, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "files": {str(p.relative_to(work)): files.checksum(p) for p in found},
        }
        files.write_json(work / "meta.json", meta)
        target = self.root / stage.key
        if target.exists():
            shutil.rmtree(target)
        os.replace(work, target)
        return Finished(target, meta)

    @contextmanager
    def using(self, keys: list[str]) -> Iterator[None]:
        """Hold stages while their files are needed: :meth:`drop_weights` leaves them alone meanwhile."""
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            for key in keys:
                file = held.enter_context((self.root / "locks" / f"{key}.use").open("a"))
                fcntl.flock(file, fcntl.LOCK_SH)
            yield

    def drop_weights(self, key: str) -> None:
        """Delete a finished stage's weights but keep its record, so its work is not repeated.

        The record is its summary, its settings and :data:`RECORD`.

        Nothing happens while another run uses the stage (it will drop them itself).
        """
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        with (self.root / "locks" / f"{key}.use").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._drop(key)

    def _drop(self, key: str) -> None:
        found = self.get(key, verify=False)
        if found is None:
            return
        kept = {name: sha for name, sha in found.meta["files"].items() if name.startswith(RECORD)}
        if len(kept) == len(found.meta["files"]):
            return
        meta = {**found.meta, "files": kept, "dropped": sorted(found.meta["files"].keys() - kept)}
        files.write_json(found.folder / "meta.json", meta)
        for name in meta["dropped"]:
            (found.folder / name).unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        """Forget a finished stage altogether."""
        shutil.rmtree(self.root / key, ignore_errors=True)

    def entries(self) -> list[Finished]:
        """Return all finished stages, oldest first (not verified)."""
        found = [self.get(p.parent.name, verify=False) for p in self.root.glob("*/meta.json")]
        return sorted((f for f in found if f), key=lambda f: f.meta["finished"])


def size(folder: Path) -> int:
    """Return the bytes below a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
