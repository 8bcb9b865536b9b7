"""Object storage: what machines without a common disk share, below one URL that fsspec understands.

Layout: ``store/<key>/`` a finished stage (``meta.json`` is written last and names the folder of its files: without it
the stage is not there),
``work/<key>/<number>-<token>/`` a checkpoint of one being built (``manifest.json`` is written last),
``runs/<study>/<run>/`` what a run leaves (``result.json`` is written last), with ``.stop`` while it shall stop.

There are no locks here: two machines may build the same stage at once. Both get the same content, and the last wins.
Credentials and endpoints are fsspec's business (its environment variables and files); a URL that holds a password is
refused.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kdexp.common import files
from kdexp.config.schema import Config

OBJECTS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"}
"""Protocols where an object appears whole or not at all; elsewhere a file is written under another name and moved."""
RUN = (".hydra/config.yaml", ".hydra/overrides.yaml", "run.log", "metrics.jsonl", "status.json", "result.json")
"""What is shared of a run's folder, in the order in which it is written; locks and tracking marks stay at home."""
GROWING = ("run.log", "metrics.jsonl")
STOP = ".stop"


class Mirror:
    """Finished stages, checkpoints and runs below a URL.

    Args:
        url: ``s3://bucket/prefix``, ``gs://...``, ``file:///folder``.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.whole = url.partition(":")[0] in OBJECTS

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
        return self._json(self.at("store", key, "meta.json"))

    def pull_stage(self, key: str, folder: Path) -> dict[str, Any] | None:
        """Fetch a finished stage into an empty folder; returns its record, None if it is not there.

        Raises:
            ValueError: a file at the URL is damaged; it is named.
        """
        meta = self.meta(key)
        if meta is not None:
            self._fetch(self.at("store", key), folder, meta["files"], meta.pop("at"))
            files.write_json(folder / "meta.json", meta)
        return meta

    def push_stage(self, folder: Path, meta: dict[str, Any]) -> None:
        """Send a finished stage, its record last; each sender has a place of its own for the files."""
        base, own = self.at("store", meta["key"]), secrets.token_hex(4)
        for name in meta["files"]:
            self._put(folder / name, f"{base}/{own}/{name}")
        self._pipe(f"{base}/meta.json", json.dumps({**meta, "at": own}, indent=1).encode())

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
            ValueError: a file at the URL is damaged; it is named.
        """
        while True:
            newest = next(reversed(self._works(key)), None)
            if newest is None or newest == known:
                return None
            base = self.at("work", key, newest)
            manifest = self._json(f"{base}/manifest.json")
            try:
                if manifest is not None:
                    self._fetch(base, folder / newest, manifest["files"])
                    return newest
            except FileNotFoundError:  # a newer one has replaced it while it was being read
                continue

    def push_work(self, key: str, folder: Path) -> str:
        """Send a begun stage's files, then drop older ones; returns the name it has there."""
        have = self._works(key)
        number = 1 + max((int(name.partition("-")[0]) for name in have), default=0)
        name = f"{number:08d}-{secrets.token_hex(4)}"
        found = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
        for relative, path in found.items():
            self._put(path, self.at("work", key, name, relative))
        manifest = {"files": {relative: files.checksum(path) for relative, path in found.items()}}
        self._pipe(self.at("work", key, name, "manifest.json"), json.dumps(manifest).encode())
        for old in have:
            self._remove(self.at("work", key, old), "manifest.json")
        return name

    def drop_work(self, key: str) -> None:
        """Forget all checkpoints of a stage."""
        for name in self._works(key):
            self._remove(self.at("work", key, name), "manifest.json")

    # --- runs ---

    def run(self, where: Path, *parts: str) -> str:
        """Return the place of a run whose folder ends in ``<study>/<run>``."""
        return self.at("runs", where.parent.name, where.name, *parts)

    def has_result(self, where: Path) -> bool:
        """Tell whether a run's result is there."""
        return bool(self.fs.exists(self.run(where, "result.json")))

    def pull_run(self, where: Path) -> bool:
        """Fetch a run's folder if it got further elsewhere: it is finished there, or more attempts were made.

        Returns:
            Whether anything was fetched.
        """
        if (where / "result.json").exists():
            return False
        result = self._json(self.run(where, "result.json"))
        there = self._json(self.run(where, "status.json"))
        here = files.read_json(where / "status.json") or {}
        if result is None and (there is None or there.get("attempt", 0) <= here.get("attempt", 0)):
            return False
        for name in RUN:
            content = self._cat(self.run(where, name))
            if content is not None and name in GROWING:
                where.mkdir(parents=True, exist_ok=True)
                (where / name).write_bytes(content)  # in place: this process may be writing to its end
            elif content is not None:
                files.write_text(where / name, content.decode())
        return True

    def push_run(self, where: Path) -> None:
        """Send a run's folder, its result last."""
        for name in RUN:
            path = where / name
            if path.is_file():
                content = path.read_bytes()
                if name in GROWING:
                    content = content[: content.rfind(b"\n") + 1]
                self._pipe(self.run(where, name), content)

    def finished(self, runs: Iterable[Path]) -> list[Path]:
        """Return those of the runs whose result is there; one listing a study."""
        runs, found = list(runs), set[str]()
        for study in {where.parent.name for where in runs}:
            found |= {p.rsplit("/", 3)[-2] for p in self.fs.glob(self.at("runs", study, "*", "result.json"))}
        return [where for where in runs if where.name in found]

    def ask_to_stop(self, where: Path) -> None:
        """Ask a run to save itself and leave, wherever it is."""
        self._pipe(self.run(where, STOP), b"stop")

    def asked_to_stop(self, where: Path) -> bool:
        """Tell whether a run was asked to leave."""
        return bool(self.fs.exists(self.run(where, STOP)))

    def let_run(self, where: Path) -> None:
        """Take back what :meth:`ask_to_stop` asked for."""
        self._remove(self.run(where), STOP, whole=False)

    # --- transport ---

    def _cat(self, path: str) -> bytes | None:
        try:
            return self.fs.cat_file(path)
        except FileNotFoundError:
            return None

    def _json(self, path: str) -> Any | None:
        content = self._cat(path)
        try:
            return None if content is None else json.loads(content)
        except ValueError as error:
            said = f"{self._said(path)} is damaged ({error}): delete it and run the command again."
            raise ValueError(said) from error

    def _fetch(self, base: str, folder: Path, sums: dict[str, str], below: str = "") -> None:
        """Copy files from the URL (``below`` a folder there) and compare their checksums.

        Raises:
            ValueError: one is missing or differs; it is named.
        """
        for name, expected in sums.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.fs.get_file("/".join(part for part in (base, below, name) if part), str(path))
                good = files.checksum(path) == expected
            except FileNotFoundError:
                if not any(self.fs.exists(f"{base}/{mark}") for mark in ("manifest.json", "meta.json")):
                    raise
                good = False
            if not good:
                said = "/".join(part for part in (self._said(base), below, name) if part)
                raise ValueError(
                    f"{said} is damaged or missing (its sha256 is not the one noted when it was written): delete the "
                    f"folder {self._said(base)}; the same command builds it again."
                )

    def _put(self, path: Path, target: str) -> None:
        if self.whole:
            self.fs.put_file(str(path), target)
            return
        part = f"{target}.{secrets.token_hex(4)}.part"
        self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.fs.put_file(str(path), part)
        self.fs.mv(part, target)

    def _pipe(self, target: str, content: bytes) -> None:
        if self.whole:
            self.fs.pipe_file(target, content)
            return
        with tempfile.TemporaryDirectory(prefix="kdexp-") as folder:
            path = Path(folder) / "content"
            path.write_bytes(content)
            self._put(path, target)

    def _remove(self, folder: str, first: str, whole: bool = True) -> None:
        """Delete a file that makes a folder count, then the rest of it."""
        for path, deep in ((f"{folder}/{first}", False), *([(folder, True)] if whole else [])):
            try:
                self.fs.rm(path, recursive=deep)
            except FileNotFoundError:
                continue

    def _said(self, path: str) -> str:
        """Return a path as people write it."""
        return self.url + path.removeprefix(self._open()[1])


def of(config: Config) -> Mirror | None:
    """Return the mirror that a configuration names (``runtime.remote``), or None."""
    url = config.runtime.remote
    return Mirror(url) if url else None
