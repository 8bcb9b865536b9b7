"""The store: finished stages, addressed by their keys, shared by all runs and processes.

Layout below the root: ``<key>/`` a finished stage (``meta.json`` and its files), ``work/<key>/`` one being built or
left by a killed process (it is continued), ``locks/<key>.lock`` held by the process that builds, ``damaged/`` what was
set aside because it is not what was written (it is built again).

``python -m kdexp store list | show KEY | verify | gc`` is for people.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from kdexp.common import files, turns
from kdexp.common.files import Damaged, DiskFull, Interrupted
from kdexp.store.stage import Stage

SCRAP = (
    "checkpoint",
    "checkpoint.new",
    "checkpoint.old",
    "checkpoint.damaged",
    "best.safetensors",
    "holder.json",
    "pushed.json",
)
"""What a phase leaves behind while it runs; no part of its result."""
META = "meta.json"
SHAPE = {
    "key": str, "name": str, "summary": dict, "files": dict, "parents": dict, "shared": bool, "finished": str,
    "seconds": (float, int),
}  # fmt: skip
"""What the record of a finished stage must have."""
DAMAGED = "damaged"
"""In the store: stages that were set aside because they are not what was written; gc frees them."""

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
            Damaged: a file of it is missing, or not what was written; it is named.
        """
        return self._read(self.root / key, key, verify)

    def _read(self, folder: Path, key: str, verify: bool = True) -> Finished | None:
        meta = files.read_record(folder / META, SHAPE)
        if meta is None:
            if verify and folder.is_dir():
                raise Damaged(folder / META, "it is missing")
            return None
        if meta["key"] != key:
            raise Damaged(folder / META, f"it is the record of {meta['key'][:12]}")
        for name, expected in (meta["files"] if verify else {}).items():
            path = folder / name
            if not path.is_file():
                raise Damaged(path, "it is missing")
            if files.checksum(path) != expected:
                raise Damaged(path, "its sha256 is not the one noted when it was written")
        return Finished(folder, meta)

    def mend(self, key: str, say: Callable[[str], None]) -> None:
        """Set a damaged stage aside, so that it is built again; asked under the stage's lock."""
        try:
            self.get(key)
        except Damaged as error:
            place = files.set_aside(self.root / key, self.root / DAMAGED)
            say(f"{error}: the stage {key[:12]} is set aside in {place} and built again")

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

        with suppress(Damaged):
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
            self.mend(stage.key, say)
            work = self.root / "work" / stage.key
            found = fetch(work) if fetch else self.get(stage.key)
            if found is None or not found.whole:
                found = self._take_up(stage.key, work)
            if found is not None and found.whole:
                return found, True
            work.mkdir(parents=True, exist_ok=True)
            started = time.time()
            with files.room(work):
                files.write_record(work / "holder.json", {"pid": os.getpid(), "host": socket.gethostname()})
                return self._commit(stage, work, action(work), started), False
        finally:
            lock.release()

    def _wait(self, lock: Any, stage: Stage, stop: Callable[[], bool]) -> None:
        """Wait for a lock in slices, so that a person's stop is heard."""
        from filelock import Timeout

        deadline = time.monotonic() + self.timeout
        while not stop():
            try:
                with turns.aside():
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
        held = files.read_note(self.root / "work" / key / "holder.json")
        return f"process {held.get('pid', '?')} on {held.get('host', '?')}"

    def _take_up(self, key: str, work: Path) -> Finished | None:
        """Bring a stage to its end whose builder was killed when all but the rename was done; None if it was not."""
        if not (work / META).is_file():
            return None
        try:
            self._read(work, key)
        except Damaged:
            (work / META).unlink()
            return None
        return self._place(key, work)

    def _commit(self, stage: Stage, work: Path, summary: dict[str, Any], started: float) -> Finished:
        """Turn a work folder into a finished stage in one rename.

        All of it is on the disk before the record is, and the record before the name: what has a name is whole.
        """
        files.open_up(work)
        below = [(p, p.relative_to(work)) for p in sorted(work.rglob("*")) if p.is_file()]
        kept = [path for path, name in below if str(name) != META and not _is_scrap(name)]
        for path in kept:
            files.sync(path)
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
            "files": {str(p.relative_to(work)): files.checksum(p) for p in kept},
        }
        files.write_record(work / META, meta)
        return self._place(stage.key, work)

    def _place(self, key: str, work: Path) -> Finished:
        """Give a finished work folder its name in the store."""
        for path in [p for p in work.rglob("*") if _is_scrap(p.relative_to(work))]:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        files.sync_tree(work)
        target = self.root / key
        if target.exists():  # only its record was kept
            shutil.rmtree(target)
        os.replace(work, target)
        files.sync(self.root)
        finished = self.get(key, verify=False)
        assert finished is not None
        return finished

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
        try:
            files.write_record(found.folder / META, meta)
        except DiskFull:  # this is how people make room: the largest file makes it for the record
            max((found.folder / name for name in meta["dropped"]), key=_bytes).unlink(missing_ok=True)
            files.write_record(found.folder / META, meta)
        for name in meta["dropped"]:
            (found.folder / name).unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        """Forget a finished stage altogether."""
        shutil.rmtree(self.root / key, ignore_errors=True)

    def entries(self, say: Callable[[str], None] = lambda sentence: None) -> list[Finished]:
        """Return all finished stages, oldest first (their files are not verified).

        Args:
            say: hears of each whose record is damaged; it is left out.
        """
        found = []
        for path in self.root.glob("*/" + META):
            try:
                found.append(self.get(path.parent.name, verify=False))
            except Damaged as error:
                say(f"{error}: the command that needs this stage builds it again")
        return sorted((f for f in found if f), key=lambda f: f.meta["finished"])


def _is_scrap(path: Path) -> bool:
    """Tell whether a path below a work folder is no part of the result."""
    return path.parts[0] in SCRAP or any(fnmatch(part, files.ASIDE) for part in path.parts)


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def size(folder: Path) -> int:
    """Return the bytes below a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
