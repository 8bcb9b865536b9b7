"""Golden values: every loss, mapping and schedule against the reference file, by the functions that training uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdexp.cli import reference, vectors

DATA = Path(__file__).resolve().parents[1] / "data"
FIRST, MORE = (vectors.load(DATA / name) for name in ("vectors.json", "more_vectors.json"))
VECTORS = FIRST + MORE


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["id"])
def test_vector(vector):
    passed, got = vectors.check(vector)
    assert passed, f"expected {vector['expected']}, got {got}"


def test_none_is_missing():
    assert (len(FIRST), len(MORE)) == (118, 214)
    assert [len({v["function"] for v in some}) for some in (FIRST, MORE)] == [45, 52]
    pinned = {v["function"] for v in VECTORS}
    assert {name for name, [f, *_] in vectors.functions().items() if f.__module__ == reference.__name__} <= pinned
