"""Files that are whole or absent: atomic writes, checksums, safe reading."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop; what it had done is saved."""


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically (a reader sees the old file or the new one, never half of one)."""
    write_text(path, json.dumps(value, indent=1, sort_keys=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def copy(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    write_bytes(target, source.read_bytes())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Make sure that a file's content has reached the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_json(path: Path) -> Any | None:
    """Return a JSON file's content; None if there is no such file.

    Raises:
        ValueError: the file is damaged; it is named.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and run the command again.") from error


def checksum(path: Path) -> str:
    """Return the sha256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
