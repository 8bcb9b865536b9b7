"""Names of studies, runs' parts and terms: they become folders, experiments, columns and words of command lines."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

MOST_LETTERS, MOST_BYTES = 48, 64
"""Length of a name; three of them, a seed and a hash are one folder's name, which file systems end at 255 bytes."""
SIGNS = "_-.+@"
"""Signs that a name may have beside letters and digits."""
RULE = (
    f"a name is one folder name: at most {MOST_LETTERS} letters (of any script), digits and {' '.join(SIGNS)}, "
    "the first a letter, a digit or _"
)
TAKEN = ("mlartifacts", "mlflow.db", "mlruns")
"""Entries of the folder of studies that are none."""


def problem(name: object) -> str | None:
    """Return what is wrong with a name, as the end of the sentence that ``key='name'`` begins; None if nothing is."""
    if not isinstance(name, str):
        return f"is no text; {RULE}."
    if not _fits(name):
        other = suggestion(name)
        return f"is no name; {RULE}{f', such as {other}' if other else ''}."
    if name != unicodedata.normalize("NFC", name):
        return "is written with separate accents, so that it would be another folder than the name it looks like."
    return None


def study_problem(name: object) -> str | None:
    """As :func:`problem`, for a study; some names are taken."""
    if isinstance(name, str) and name.casefold() in TAKEN:
        return "is the name of something else beside the studies; choose another one."
    return problem(name)


def twin(name: str, folder: Path) -> str | None:
    """Return an entry of a folder that some machines take for ``name``: it differs in upper case or accents only."""
    if not folder.is_dir():
        return None
    same = _folded(name)
    entries = [path.name for path in folder.iterdir() if _folded(path.name) == same]
    return next(iter(sorted(entries)), None) if name not in entries else None


def suggestion(name: str) -> str:
    """Return a name that is like a text; empty if nothing of it is left."""
    text = unicodedata.normalize("NFC", name)
    kept = "".join(sign if _is_letter(sign) or sign in SIGNS else "_" for sign in text)
    short = re.sub(r"_{2,}", "_", kept).strip("_-.+@")[:MOST_LETTERS]
    while len(short.encode("utf-8", "replace")) > MOST_BYTES:
        short = short[:-1]
    return short if _fits(short) else ""


def _fits(name: str) -> bool:
    if not name or len(name) > MOST_LETTERS or not all(_is_letter(sign) or sign in SIGNS for sign in name):
        return False
    begins = name[0] == "_" or (_is_letter(name[0]) and unicodedata.category(name[0])[0] != "M")
    return begins and len(name.encode("utf-8", "replace")) <= MOST_BYTES


def _is_letter(sign: str) -> bool:
    return unicodedata.category(sign)[0] in ("L", "M") or unicodedata.category(sign) == "Nd"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
