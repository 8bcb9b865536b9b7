"""Stores whose folder was moved or copied: MLflow keeps absolute places of artifacts, and these follow the store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from kdexp.common import sqlite
from kdexp.common.tracked import ARTIFACTS, beside

PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's schema that say where artifacts lie."""


def follow(store: Path) -> int:
    """Write places anew that an SQLite store says are elsewhere, where the same artifacts lie beside it.

    Args:
        store: the SQLite file; it is only read where nothing has moved.

    Returns:
        the number of places that were changed.

    Raises:
        ValueError: it is no store, or something has moved, and it cannot be written.
    """
    try:
        changes = _changes(store)
    except sqlite3.Error as error:
        raise ValueError(f"{store} cannot be read as MLflow's store ({error})") from error
    if not changes:
        return 0
    try:
        with closing(sqlite3.connect(store, timeout=60)) as connection, connection:
            for table, column, old, new in changes:
                connection.execute(f"update {table} set {column} = ? where {column} = ?", (new, old))
    except sqlite3.Error as error:
        raise ValueError(
            f"{store} was moved, and cannot be told where its artifacts lie now ({error}); is it writable?"
        ) from error
    return len(changes)


def _changes(store: Path) -> list[tuple[str, str, str, str]]:
    """Return (table, column, old place, new place) of all that lies elsewhere now."""
    changes = []
    with closing(sqlite.read_only(store)) as connection:
        known = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
        for table, column in PLACES:
            if table in known:  # an older MLflow's schema has fewer
                query = f"select distinct {column} from {table} where {column} like 'file:%/{ARTIFACTS}/%'"
                places = [old for (old,) in connection.execute(query)]
                changes += [(table, column, old, new) for old in places if (new := beside(store, old)) != old]
    return changes
