"""Object storage: what machines without a common disk share, below one URL that fsspec understands.

Layout: ``store/<key>/`` a finished stage (``meta.json`` is written last and names the folder of its files: without it
the stage is not there), ``work/<key>/<number>-<token>/`` a checkpoint of one being built (``manifest.json`` is written
last), ``runs/<study>/<run>/`` what a run leaves (:mod:`kdexp.store.shared_run`).

There are no locks here: two machines may build the same stage at once. Both get the same content, and the last wins.
Credentials and endpoints are fsspec's business (its environment variables and files); a URL that holds a password is
refused.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from kdexp.common import files
from kdexp.config.schema import Config
from kdexp.store.store import META, SHAPE

T = TypeVar("T")

OBJECTS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"}
"""Protocols where an object appears whole or not at all; elsewhere a file is written under another name and moved."""
ANSWER_S = 30.0
"""Seconds within which the storage has to answer a question."""
SEND_S = 120.0
"""Seconds that a training waits while a checkpoint (or a run's folder) is sent."""
TRANSFER_S = 900.0
"""Seconds that fetching anything, or sending a finished stage, may take."""


class DamagedThere(ValueError):
    """What lies at the URL is not what was written.

    Attributes:
        mark: path of the record without which it counts as missing (:meth:`RemoteStore.set_aside`).
    """

    def __init__(self, sentence: str, mark: str):
        super().__init__(sentence)
        self.mark = mark


class RemoteStore:
    """Finished stages, checkpoints and runs below a URL.

    Every method may wait for ever, as storage does; :meth:`limited` is for callers that have better things to do.

    Args:
        url: ``s3://bucket/prefix``, ``gs://...``, ``file:///folder``.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.whole = url.partition(":")[0] in OBJECTS
        self._hanging: threading.Thread | None = None

    def limited(self, seconds: float, call: Callable[[], T]) -> T:
        """Return what a call to the storage returns, if it does so in time.

        A call that hangs in the network cannot be ended, so it is made in a thread, which is left behind. Until that
        one has come back, further calls fail at once: a storage that hangs costs a run ``seconds`` once, not each time.

        Raises:
            TimeoutError: it did not.
            Exception: the call's own.
        """
        if self._hanging is not None and self._hanging.is_alive():
            raise TimeoutError("it still hangs in an earlier call")
        outcome: list[T] = []
        failure: list[Exception] = []

        def carry() -> None:
            try:
                outcome.append(call())
            except Exception as error:
                failure.append(error)

        thread = threading.Thread(target=carry, name="kdexp-remote", daemon=True)
        thread.start()
        thread.join(seconds)
        if failure:
            raise failure[0]
        if not outcome:
            self._hanging = thread
            raise TimeoutError(f"no answer within {seconds:.0f} s")
        return outcome[0]

    def probe(self, write: bool) -> None:
        """Try whether the storage can be used, by looking for (or writing) a small file ``.kdexp``."""
        if write:
            self.write(self.at(".kdexp"), b"kdexp\n")
        else:
            self.fs.exists(self.at(".kdexp"))

    @property
    def fs(self) -> Any:
        """The file system; fsspec keeps one a process, so none is carried across a fork."""
        return self._open()[0]

    def _open(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        options = {"auto_mkdir": True} if self.url.startswith("file:") else {}
        fs, root = url_to_fs(self.url, **options)
        fs.invalidate_cache()
        return fs, str(root).rstrip("/")

    def at(self, *parts: str) -> str:
        """Return a path as the file system writes it."""
        return "/".join((self._open()[1], *parts))

    # --- finished stages ---

    def meta(self, key: str) -> dict[str, Any] | None:
        """Return the record of a finished stage, or None."""
        return self.read_record(self.at("store", key, META), SHAPE)

    def pull_stage(self, key: str, folder: Path) -> dict[str, Any] | None:
        """Fetch a finished stage into an empty folder; returns its record, None if it is not there.

        Raises:
            DamagedThere: a file at the URL is damaged; it is named.
        """
        meta = self.meta(key)
        if meta is not None:
            self._fetch(self.at("store", key, META), folder, meta["files"], meta.pop("at"))
            files.write_record(folder / META, meta)
        return meta

    def push_stage(self, folder: Path, meta: dict[str, Any]) -> None:
        """Send a finished stage, its record last; each sender has a place of its own for the files."""
        base, place = self.at("store", meta["key"]), secrets.token_hex(4)
        for name in meta["files"]:
            self.put(folder / name, f"{base}/{place}/{name}")
        self.write(f"{base}/{META}", files.record({**meta, "at": place}).encode())

    # --- work that has begun ---

    def _works(self, key: str) -> list[str]:
        """Return the complete checkpoints of a stage, oldest first."""
        base = self.at("work", key)
        return sorted(p.split("/")[-2] for p in self.fs.find(base) if p.endswith("/manifest.json"))

    def has_work(self, key: str) -> bool:
        """Tell whether a checkpoint of a stage is there."""
        return bool(self._works(key))

    def pull_work(self, key: str, folder: Path, known: str | None) -> str | None:
        """Fetch the newest checkpoint of a stage into a new folder below ``folder``; returns its name.

        None: there is none, or it is ``known`` (the one that this machine sent or fetched last).

        Raises:
            DamagedThere: a file at the URL is damaged; it is named.
        """
        while True:
            newest = next(reversed(self._works(key)), None)
            if newest is None or newest == known:
                return None
            mark = self.at("work", key, newest, "manifest.json")
            manifest = self.read_record(mark, {"files": dict})
            try:
                if manifest is not None:
                    self._fetch(mark, folder / newest, manifest["files"])
                    return newest
            except FileNotFoundError:  # a newer one has replaced it while it was being read
                continue

    def push_work(self, key: str, folder: Path, leave: Iterable[str] = ()) -> str:
        """Send a begun stage's files, then drop older ones; returns the name it has there.

        Args:
            leave: names in the folder that stay at home.

        Raises:
            RuntimeError: a file was replaced meanwhile (this call took too long and was left behind). What was sent is
                of two checkpoints, so nothing says that it is there.
        """
        have = self._works(key)
        number = 1 + max((int(name.partition("-")[0]) for name in have), default=0)
        name = f"{number:08d}-{secrets.token_hex(4)}"
        paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".tmp"]
        sent = {str(p.relative_to(folder)): p for p in paths if p.relative_to(folder).parts[0] not in leave}
        before = [_version(path) for path in sent.values()]
        for relative, path in sent.items():
            self.put(path, self.at("work", key, name, relative))
        manifest = {"files": {relative: files.checksum(path) for relative, path in sent.items()}}
        if before != [_version(path) for path in sent.values()]:
            raise RuntimeError("the checkpoint was replaced by the next one while it was being sent")
        self.write(self.at("work", key, name, "manifest.json"), files.record(manifest).encode())
        for old in have:
            self.remove(self.at("work", key, old, "manifest.json"), self.at("work", key, old))
        return name

    def drop_work(self, key: str) -> None:
        """Forget all checkpoints of a stage, and what is left of those that were not sent to their end."""
        self.remove(*(self.at("work", key, name, "manifest.json") for name in self._works(key)), self.at("work", key))

    # --- transport ---

    def read(self, path: str) -> bytes | None:
        """Return a file's content, or None."""
        try:
            return self.fs.cat_file(path)
        except FileNotFoundError:
            return None

    def read_record(self, path: str, shape: files.Shape) -> dict[str, Any] | None:
        """Return a record (:func:`kdexp.common.files.read_record`), or None.

        Raises:
            DamagedThere: it is damaged; it is named.
        """
        content = self.read(path)
        try:
            return None if content is None else files.parse_record(content, self._shown(path), shape)
        except files.Damaged as error:
            raise DamagedThere(str(error), path) from error

    def set_aside(self, error: DamagedThere) -> str:
        """Give the record of something damaged another name, so that it counts as missing and is made again.

        Its files stay where they are: a copy of them would be costly, and whoever makes it again has a place of its
        own. Another machine may have been quicker.

        Returns:
            What was done, for people.

        Raises:
            ValueError: it cannot be done here.
        """
        aside = f"{error.mark}.damaged-{secrets.token_hex(4)}"
        try:
            self.fs.mv(error.mark, aside)
        except FileNotFoundError:
            return f"{error}: another process has set it aside"
        except Exception as failure:  # each protocol has errors of its own
            folder = self._shown(error.mark.rpartition("/")[0])
            raise ValueError(
                f"{error}. It cannot be set aside ({type(failure).__name__}: {failure}): delete the folder {folder}; "
                "the same command makes it again."
            ) from failure
        return f"{error}: it is set aside ({self._shown(aside)}) and made again"

    def _fetch(self, mark: str, folder: Path, sums: dict[str, str], below: str = "") -> None:
        """Copy the files of a record at the URL (``below`` a folder beside it) and compare their checksums.

        Raises:
            DamagedThere: one is missing or differs; it is named.
            FileNotFoundError: the record is gone as well.
        """
        base = mark.rpartition("/")[0]
        for name, expected in sums.items():
            path, source = folder / name, "/".join(part for part in (base, below, name) if part)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.fs.get_file(source, str(path))
                is_good = files.checksum(path) == expected
            except FileNotFoundError:
                if not self.fs.exists(mark):
                    raise
                is_good = False
            if not is_good:
                what = "is damaged or missing (its sha256 is not the one noted when it was written)"
                raise DamagedThere(f"{self._shown(source)} {what}", mark)

    def put(self, path: Path, target: str) -> None:
        """Send a file; it appears whole."""
        if self.whole:
            self.fs.put_file(str(path), target)
            return
        part = f"{target}.{secrets.token_hex(4)}.part"
        self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.fs.put_file(str(path), part)
        self.fs.mv(part, target)

    def write(self, target: str, content: bytes) -> None:
        """Write a file; it appears whole."""
        if self.whole:
            self.fs.pipe_file(target, content)
            return
        with tempfile.TemporaryDirectory(prefix="kdexp-") as folder:
            path = Path(folder) / "content"
            path.write_bytes(content)
            self.put(path, target)

    def remove(self, *paths: str) -> None:
        """Delete files and folders in this order: what makes a folder count goes before it."""
        for path in paths:
            try:
                self.fs.rm(path, recursive=True)
            except FileNotFoundError:
                continue

    def _shown(self, path: str) -> str:
        """Return a path as people write it."""
        return self.url + path.removeprefix(self._open()[1])


def _version(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is replaced or written to."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def of(config: Config) -> RemoteStore | None:
    """Return the object storage that a configuration names (``runtime.remote``), or None."""
    url = config.runtime.remote
    return RemoteStore(url) if url else None
