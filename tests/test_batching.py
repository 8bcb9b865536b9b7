"""The order of batches: complete, pure, tight."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from kdexp.config.schema import Recipe
from kdexp.train.batching import batches, evaluation_batches, multiple_of, padded, padding_share

LENGTHS = np.random.default_rng(7).integers(4, 64, size=1000)


def ids(found: list[np.ndarray]) -> list[int]:
    return np.concatenate(found).tolist()


def padding(found: list[np.ndarray]) -> float:
    """Share of padding among all positions."""
    wide = sum(len(b) * LENGTHS[b].max() for b in found)
    return 1 - LENGTHS.sum() / wide


@pytest.mark.parametrize("bucket", [True, False])
def test_every_example_once(bucket: bool) -> None:
    found = batches(LENGTHS, 32, seed=1, epoch=0, bucket=bucket)
    assert sorted(ids(found)) == list(range(1000))
    assert sorted(len(b) for b in found) == [8] + [32] * 31


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first = ids(batches(LENGTHS, 32, seed=1, epoch=3))
    batches(LENGTHS, 32, seed=5, epoch=0)
    assert ids(batches(LENGTHS.copy(), 32, seed=1, epoch=3)) == first
    assert ids(batches(LENGTHS, 32, seed=1, epoch=4)) != first
    assert ids(batches(LENGTHS, 32, seed=2, epoch=3)) != first


def test_order_is_pinned() -> None:
    assert ids(batches(np.array([5, 3, 9, 4, 8, 2]), 2, seed=1, epoch=0)) == PINNED


PINNED = [5, 1, 3, 0, 4, 2]


def test_neighbours_change_between_epochs() -> None:
    def company(epoch: int) -> set[frozenset[int]]:
        return {frozenset(b.tolist()) for b in batches(LENGTHS, 8, seed=1, epoch=epoch)}

    assert len(company(0) & company(1)) < 5


def test_buckets_save_padding() -> None:
    assert padding(batches(LENGTHS, 32, 1, 0, bucket=True)) < 0.1 < padding(batches(LENGTHS, 32, 1, 0, bucket=False))


def test_the_share_of_padding_is_what_batches_have() -> None:
    recipe = Recipe(batch_size=32)
    assert padding_share(LENGTHS, recipe, 1, 1) == pytest.approx(padding(batches(LENGTHS, 32, 1, 0)))
    assert padding_share(LENGTHS, recipe, 1, 8) > padding_share(LENGTHS, recipe, 1, 1) + 0.03
    assert padding_share(np.full(64, 8), recipe, 1, 8) == 0
    assert padding_share(LENGTHS, recipe.model_copy(update={"bucket": False}), 1, 1) > 0.3


def test_only_a_cpu_has_no_preferred_width() -> None:
    assert [multiple_of(device) for device in ("cpu", "cuda", "mps")] == [1, 8, 8]


def test_batches_do_not_come_by_length() -> None:
    widths = [LENGTHS[b].max() for b in batches(LENGTHS, 32, seed=1, epoch=0)]
    assert abs(np.corrcoef(widths, np.arange(len(widths)))[0, 1]) < 0.5


def test_drop_last_and_plain_order() -> None:
    assert all(len(b) == 32 for b in batches(LENGTHS, 32, 1, 0, drop_last=True))
    assert ids(batches(LENGTHS, 32, 1, 0, shuffle=False)) == list(range(1000))


@pytest.mark.parametrize(("n", "size", "drop"), [(0, 4, False), (3, 4, True), (3, 0, False)])
def test_nothing_to_do_is_an_error(n: int, size: int, drop: bool) -> None:
    with pytest.raises(ValueError, match="batch"):
        batches(np.ones(n, dtype=int), size, 0, 0, drop_last=drop)


def test_evaluation_is_sorted_and_complete() -> None:
    found = evaluation_batches(LENGTHS, 50)
    assert sorted(ids(found)) == list(range(1000))
    assert np.all(np.diff(LENGTHS[ids(found)]) >= 0)
    assert len(evaluation_batches(LENGTHS[:0], 50)) == 0


@pytest.mark.parametrize(
    ("lengths", "multiple", "limit", "width"),
    [([3, 9], 8, None, 16), ([8], 8, None, 8), ([9], 1, None, 9), ([60], 16, 62, 62), ([70], 16, 62, 70)],
)
def test_widths_are_rounded_up(lengths: list[int], multiple: int, limit: int | None, width: int) -> None:
    assert padded(np.array(lengths), np.arange(len(lengths)), multiple, limit) == width


def test_larger_pools_pad_less_and_the_default_is_what_it_was():
    """``recipe.bucket`` may name the batches of a pool; true stays 32 of them."""
    lengths = np.random.default_rng(0).integers(5, 60, 16 * 256)
    shares = {}
    for bucket in (False, True, 32, 128):
        stream = batches(lengths, 16, seed=1, epoch=0, bucket=bucket)
        assert sorted(np.concatenate(stream).tolist()) == list(range(len(lengths)))
        recipe = Recipe(batch_size=16, bucket=bucket)
        shares[bucket] = padding_share(lengths, recipe, 1, 1)
    for one, other in zip(*(batches(lengths, 16, 1, 0, bucket=bucket) for bucket in (True, 32)), strict=True):
        assert np.array_equal(one, other)
    assert shares[128] < shares[32] / 2 < shares[False] / 8


@pytest.mark.parametrize("bucket", [0, -1, 1, 1.5, "many"])
def test_pools_that_cannot_be_are_refused(bucket):
    with pytest.raises(ValidationError):
        Recipe(bucket=bucket)
