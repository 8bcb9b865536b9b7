"""Which layer is matched with which."""

from __future__ import annotations

import pytest

from kdexp.inits.spread import Spread
from kdexp.models.shared_layers import effective_layers
from kdexp.objectives import layer_maps


class Attention:
    layers, default_mapping = "attention", "uniform"


class Hidden:
    layers, default_mapping = "hidden", "uniform"


class Patience:
    layers, default_mapping = "attention", "skip"


class Logits:
    layers, default_mapping = "none", "uniform"


@pytest.mark.parametrize(
    ("name", "kind", "k", "n", "expected"),
    [
        ("uniform", "attention", 3, 12, [(1, 4), (2, 8), (3, 12)]),
        ("uniform", "hidden", 3, 12, [(0, 0), (1, 4), (2, 8), (3, 12)]),
        ("uniform", "attention", 4, 6, [(1, 2), (2, 3), (3, 5), (4, 6)]),
        ("uniform", "hidden", 4, 6, [(0, 0), (1, 2), (2, 3), (3, 5), (4, 6)]),
        ("skip", "attention", 4, 6, [(1, 2), (2, 3), (3, 5)]),
        ("one_to_many", "attention", 2, 5, [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5)]),
        ("uniform", "attention", 12, 12, [(j, j) for j in range(1, 13)]),
        ("skip", "attention", 3, 12, [(1, 4), (2, 8)]),
        ("last", "attention", 3, 12, [(1, 10), (2, 11)]),
        ("last", "attention", 6, 12, [(1, 7), (2, 8), (3, 9), (4, 10), (5, 11)]),
        ("skip", "attention", 1, 12, []),
        ("last_only", "attention", 3, 12, [(3, 12)]),
        ("last_only", "attention", 14, 12, [(14, 12)]),
        ("first", "attention", 3, 12, [(1, 1), (2, 2), (3, 3)]),
        ("first", "hidden", 2, 12, [(0, 0), (1, 1), (2, 2)]),
        ("one_to_many", "attention", 2, 6, [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)]),
        ("combine", "hidden", 1, 2, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]),
        ("combine", "attention", 1, 2, [(1, 1), (1, 2)]),
        ("pea_kd", "attention", 3, 12, [(1, 4), (2, 8)]),
    ],
)
def test_strategies(name, kind, k, n, expected):
    assert layer_maps.STRATEGIES[name](k, n, kind=kind) == expected


@pytest.mark.parametrize(
    ("own", "effective", "expected"),
    [
        (1, 2, [(1, 6)]),
        (2, 4, [(1, 3), (2, 6), (3, 9)]),
        (3, 6, [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]),
        (6, 9, [(3, 4), (6, 8)]),
    ],
)
def test_shared_parameters(own, effective, expected):
    assert effective_layers(own, "sps1") == effective_layers(own, "sps2") == effective
    assert effective_layers(own) == own
    assert layer_maps.resolve("pea_kd", Patience, effective, 12, own_layers=own) == expected


@pytest.mark.parametrize(("k", "n"), [(k, n) for n in range(1, 25) for k in range(1, n + 1)])
def test_starts_and_matches_follow_one_rule(k, n):
    ends = Spread(name="spread").layers(k, n)
    assert [t for _, t in layer_maps.uniform(k, n, kind="attention")] == ends
    assert [t for _, t in layer_maps.skip(k, n, kind="attention")] == ends[:-1]
    covered = [t for _, t in layer_maps.one_to_many(k, n, kind="attention")]
    assert covered == list(range(1, n + 1)), "every teacher layer belongs to one block"
    sizes = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    assert max(sizes) - min(sizes) <= 1 and ends[-1] == n
    if n % k == 0:
        assert ends == [j * (n // k) for j in range(1, k + 1)], "the papers' rows"


def test_auto_is_the_objectives_own():
    assert layer_maps.resolve({"name": "auto"}, Attention, 3, 12) == [(1, 4), (2, 8), (3, 12)]
    assert layer_maps.resolve("auto", Patience, 3, 12) == [(1, 4), (2, 8)]
    assert layer_maps.resolve({"name": "uniform"}, Logits, 3, 12) == []


def test_follow_init():
    follow = {"name": "follow_init"}
    assert layer_maps.resolve(follow, Attention, 3, 12, [1, 8, 12]) == [(1, 1), (2, 8), (3, 12)]
    assert layer_maps.resolve(follow, Hidden, 3, 12, [1, 8, 12]) == [(0, 0), (1, 1), (2, 8), (3, 12)]
    without = follow | {"embeddings": False}
    assert layer_maps.resolve(without, Hidden, 3, 12, [1, 8, 12]) == [(1, 1), (2, 8), (3, 12)]
    with pytest.raises(ValueError, match="copies none"):
        layer_maps.resolve(follow, Attention, 3, 12, None)
    with pytest.raises(ValueError, match="2 copied layers"):
        layer_maps.resolve(follow, Attention, 3, 12, [1, 2])


def test_explicit_pairs():
    chosen = {"name": "explicit", "pairs": [["emb", 0], [3, 12], [3, 11]]}
    assert layer_maps.resolve(chosen, Hidden, 3, 12) == [(0, 0), (3, 12), (3, 11)]
    with pytest.raises(ValueError, match="emb is not offered here"):
        layer_maps.resolve(chosen, Attention, 3, 12)
    for pairs, message in (
        ([[4, 12]], "student layers 1 to 3"),
        ([[3, 13]], "teacher layers 1 to 12"),
        ([], "mapping.pairs"),
        ([[1]], "a pair of"),
        ([["one", 2]], "whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            layer_maps.resolve({"name": "explicit", "pairs": pairs}, Attention, 3, 12)


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="choose one of auto, uniform"):
        layer_maps.resolve("diagonal", Attention, 3, 12)
    with pytest.raises(ValueError, match="no option layer; its options: teacher_layer"):
        layer_maps.resolve({"name": "last_only", "layer": 3}, Attention, 3, 12)
    with pytest.raises(ValueError, match="a teacher of 6; the student has 12"):
        layer_maps.resolve("uniform", Attention, 12, 6)
    with pytest.raises(ValueError, match="teacher layers 1 to 12"):
        layer_maps.resolve({"name": "last_only", "teacher_layer": 13}, Attention, 3, 12)


def test_the_table_for_people():
    lines = layer_maps.describe([(0, 0), (1, 4), (3, 12)]).splitlines()
    assert lines[0] == "student layer <- teacher layer"
    assert [line.split() for line in lines[1:]] == [["emb", "<-", "emb"], ["1", "<-", "4"], ["3", "<-", "12"]]
    assert "no layers" in layer_maps.describe([])
