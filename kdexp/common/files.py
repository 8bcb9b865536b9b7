"""Files that are whole or absent: atomic writes, records with checksums, damage named, a full disk in one sentence."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"
"""Key of a record: the sha256 of all its other keys. Records of an older kdexp have none; their shape is looked at."""
ASIDE = ".*.tmp"
"""Names of what is being written; one that stays was left by a killed process and belongs to nobody."""
Shape = Mapping[str, Any]
"""Keys that a record must have -> the types of their values, as ``isinstance`` takes them."""
LOOKED_AT = ("embedded", "fingerprints", "hub", "tokenizers", "encoded", "images")
"""Folders of a cache that :func:`scratch` links."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Interrupted(Exception):
    """The run was asked to stop; what it had done is saved."""


class Damaged(ValueError):
    """A file that kdexp wrote is not what it wrote.

    Attributes:
        path: the file.
        why: what is wrong with it.
    """

    def __init__(self, path: Path | str, why: str):
        super().__init__(path, why)
        self.path, self.why = Path(path), why

    def __str__(self) -> str:
        return f"{self.args[0]} is damaged ({self.why})"


class DiskFull(OSError):
    """There is no room for what is to be written; the message says where, how much, and what to do."""


# --- whole or absent -------------------------------------------------------------------------------------------------


@contextmanager
def fresh(path: Path, size: int | None = None) -> Iterator[Path]:
    """Hand out a name to write to; what was written appears at ``path`` in one rename, or not at all.

    Its permissions are those of any file that the user makes, whoever writes it: libraries like to keep others out.

    Args:
        size: bytes that will be written, where they are known.

    Raises:
        DiskFull: there is no room for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    try:
        with room(path, size):
            mode = _touch(aside)
            yield aside
            os.chmod(aside, mode)
            sync(aside)
            os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def fresh_folder(path: Path, size: int | None = None) -> Iterator[Path]:
    """As :func:`fresh`, for a folder: all its files are on the disk before it appears; an older one is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    try:
        with room(path, size):
            aside.mkdir()
            yield aside
            open_up(aside)
            sync_tree(aside)
            if path.exists():
                shutil.rmtree(path)
            os.replace(aside, path)
            sync(path.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _touch(path: Path) -> int:
    """Make an empty file as the user's umask (and the folder) would have it; returns its permissions."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)


def open_up(folder: Path) -> None:
    """Give the files below a folder the permissions of any file that the user makes."""
    probe = _aside(folder / "probe")
    try:
        mode = _touch(probe)
    finally:
        probe.unlink(missing_ok=True)
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o777 != mode:
            with contextlib.suppress(PermissionError):  # a colleague's
                path.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically (a reader sees the old file or the new one, never half of one)."""
    write_text(path, json.dumps(value, indent=1, sort_keys=False) + "\n")


def copy(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    write_bytes(target, source.read_bytes())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with fresh(path, len(content)) as aside:
        aside.write_bytes(content)


def sync(path: Path) -> None:
    """Make sure that a file's content, or a folder's list of names, has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Make sure that a folder has reached the disk with all that is in it."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def checksum(path: Path) -> str:
    """Return the sha256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """Lend a cache that may be written and is thrown away; what another one holds is in it, linked.

    Whoever only looks works there: what is damaged or missing is made anew in it, and nothing is written elsewhere.
    What teachers said, and compiled code, is left out: both are large, and nobody who looks needs them.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path in (path for kind in LOOKED_AT for path in cache.glob(f"{kind}/**/*")):
            if path.is_file() and path.suffix != ".lock":
                link = Path(folder) / path.relative_to(cache)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
        yield Path(folder)


# --- records ---------------------------------------------------------------------------------------------------------


def record(value: Mapping[str, Any]) -> str:
    """Return a record as text: the object with its checksum."""
    plain = json.loads(json.dumps(value))
    plain.pop(CHECKSUM, None)
    return json.dumps({**plain, CHECKSUM: _digest(plain)}, indent=1) + "\n"


def write_record(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object atomically, with its checksum; :func:`read_record` reads it back."""
    write_text(path, record(value))


def read_record(path: Path, shape: Shape, strict: bool = False) -> dict[str, Any] | None:
    """Return a record (without its checksum); None if there is no such file.

    Args:
        shape: keys that it must have, and the types of their values.
        strict: one without a checksum, as an older kdexp wrote it, counts as damaged.

    Raises:
        Damaged: it is not what was written.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return parse_record(content, path, shape, strict)


def parse_record(content: bytes | str, path: Path | str, shape: Shape, strict: bool = False) -> dict[str, Any]:
    """As :func:`read_record`, of what was read at ``path``."""
    value = _parse(content, path)
    if not isinstance(value, dict):
        raise Damaged(path, f"it holds {_shown(value)}, not an object")
    noted = value.pop(CHECKSUM, None)
    if noted is None and strict:
        raise Damaged(path, "it has no checksum")
    if noted is not None and noted != _digest(value):
        raise Damaged(path, "its checksum is not that of its content")
    for key, kind in shape.items():
        if not isinstance(value.get(key), kind):
            raise Damaged(path, f"its {key} is {_shown(value[key])}" if key in value else f"it has no {key}")
    return value


def read_note(path: Path) -> dict[str, Any]:
    """Return a record that others can live without; empty if there is none that can be read."""
    try:
        return read_record(path, {}) or {}
    except (OSError, Damaged):
        return {}


def read_json(path: Path) -> Any | None:
    """Return a JSON file's content; None if there is no such file.

    Raises:
        Damaged: it is no JSON.
    """
    try:
        return _parse(path.read_bytes(), path)
    except FileNotFoundError:
        return None


def _parse(content: bytes | str, path: Path | str) -> Any:
    if not content.strip():
        raise Damaged(path, "it is empty")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or brackets without end
        raise Damaged(path, str(error) or type(error).__name__) from error


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 30 else f"{text[:30]}..."


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def set_aside(path: Path, place: Path | None = None) -> Path:
    """Take a damaged file or folder out of the way: to ``<name>.damaged``, beside it or in ``place``; returns that.

    One that was set aside before is replaced.
    """
    target = (place or path.parent) / f"{path.name}.damaged"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    os.replace(path, target)
    return target


# --- room on the disk ------------------------------------------------------------------------------------------------


@contextmanager
def room(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn whatever a library says of a full disk into :class:`DiskFull`.

    Args:
        path: the file or folder that is written; its folder is what the message names.
        size: bytes that it needs, where they are known.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        unsaid = isinstance(error, OSError) and error.errno is None and free(path.parent) < max(size or 0, 4096)
        if not unsaid and not is_full(error):  # NumPy, for one, only says that less was written than it asked for
            raise
        raise full(path, size) from error


def is_full(error: BaseException) -> bool:
    """Tell whether an error says that a disk, or somebody's share of it, is full."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    words = str(error)  # libraries that write by themselves have errors of their own
    return any(f"os error {number}" in words or os.strerror(number) in words for number in FULL)


def full(path: Path, size: int | None = None) -> DiskFull:
    """Return the error that says: no room for a file, which needs ``size`` bytes."""
    needs = "" if size is None else f" needs {said(size)}, and"
    place = path.parent.absolute()
    return DiskFull(
        f"the disk is full: {path.name}{needs} {said(free(place))} are free in {place}. Make room there "
        "(python -m kdexp store gc frees what no result needs) or use another disk (KDEXP_STORE=FOLDER for the store); "
        "the same command continues."
    )


def free(folder: Path) -> int:
    """Return the bytes that can be written below a folder, or the nearest one above it that is there."""
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    return shutil.disk_usage(place).free


def said(size: float) -> str:
    """Return bytes as people say them: ``340 bytes``, ``1.2 MB``, ``34 GB``."""
    if size < 1e6:
        return f"{size:.0f} bytes"
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
