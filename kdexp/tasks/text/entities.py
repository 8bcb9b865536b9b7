"""Entities in tagged sentences, as seqeval counts them (which follows conlleval): spans of a type.

Tags are ``O`` or ``PREFIX-TYPE`` with the prefixes B, I, E, S. An entity begins at B or S, after O, E or S, and where
the type changes; so an I without a B before it begins one too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PREFIXES = "BIES"
Entity = tuple[str, int, int]
"""Type, first word, last word."""


def parts(tag: str) -> tuple[str, str]:
    """Return a tag's prefix and type; ('O', '') of a word outside."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of one sentence, in order."""
    found: list[Entity] = []
    before, kind_before, begin = "O", "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, kind = parts(tag)
        new = kind != kind_before or prefix in "BSO" or before in "ES"
        if before != "O" and new:
            found.append((kind_before, begin, place - 1))
        if prefix != "O" and (new or before == "O"):
            begin = place
        before, kind_before = prefix, kind
    return found


def counts(given: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> np.ndarray:
    """Return of each sentence (n, 3): entities that are right, those that were given, those that are there."""
    rows = []
    for answer, truth in zip(given, right, strict=True):
        mine, theirs = set(entities(answer)), set(entities(truth))
        rows.append((len(mine & theirs), len(mine), len(theirs)))
    return np.array(rows, dtype=np.int64).reshape(-1, 3)
