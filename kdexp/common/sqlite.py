"""SQLite files as addresses of databases: a path is no address, so it is quoted, here and nowhere else."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote, unquote

SCHEME = "sqlite:///"


def address(path: str | Path) -> str:
    """Return the address of a file, whatever its name holds (``%2F``, ``#``, ``?``, spaces, umlauts).

    Only what SQLAlchemy would read as something else is quoted: MLflow makes the folder of an address as it is written.
    """
    return SCHEME + str(path).replace("%", "%25").replace("?", "%3F")


def path_of(url: str) -> Path | None:
    """Return the absolute path (against the current directory) of an SQLite address; None for other databases.

    Read as SQLAlchemy reads it: ``%XX`` is a character, and what follows ``?`` are options.
    """
    if not url.startswith(SCHEME):
        return None
    return Path(os.path.abspath(os.path.expanduser(unquote(url.removeprefix(SCHEME).split("?")[0]))))


def read_only(path: Path) -> sqlite3.Connection:
    """Open a file that is there, to read it."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=20)
