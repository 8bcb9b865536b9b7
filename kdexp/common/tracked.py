"""Where MLflow's store is, and where its artifacts lie: one rule for runs, commands and the analysis."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kdexp.common import sqlite

VARIABLE = "MLFLOW_TRACKING_URI"
ARTIFACTS = "mlartifacts"
"""Folder beside an SQLite store."""


def uri(root: str | Path, given: str = "") -> str:
    """Return the store's address: what was given, else the environment's, else ``<root>/mlflow.db``."""
    return given or os.environ.get(VARIABLE) or sqlite.address(Path(root) / "mlflow.db")


def folder(place: str) -> Path | None:
    """Return the folder behind a place of artifacts; None if it is not on this machine."""
    parts = urlsplit(place)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def beside(store: Path, place: str) -> str:
    """Return where artifacts lie: ``place``, or the same below the store's own folder, if it is there.

    MLflow keeps absolute places; a store that was moved or copied has its artifacts beside it all the same.
    """
    _, found, rest = place.rpartition(f"/{ARTIFACTS}/")
    here = f"{(store.parent / ARTIFACTS).as_uri()}/{rest}"
    there = folder(here)
    return here if found and there is not None and there.exists() else place
