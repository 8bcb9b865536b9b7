"""Golden values: every loss, mapping and schedule against the reference file, by the functions that training uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdexp.cli import reference, vectors

VECTORS = vectors.load(Path(__file__).resolve().parents[1] / "data" / "vectors.json")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["id"])
def test_vector(vector):
    passed, got = vectors.check(vector)
    assert passed, f"expected {vector['expected']}, got {got}"


def test_none_is_missing():
    assert len(VECTORS) == 118
    pinned = {v["function"] for v in VECTORS}
    assert len(pinned) == 45
    assert {name for name, [f, *_] in vectors.functions().items() if f.__module__ == reference.__name__} <= pinned
