"""Which examples come together, and in which order: a pure function of (seed, epoch, lengths)."""

from __future__ import annotations

import numpy as np

from kdexp.config.schema import Recipe

POOL = 32
"""Batches whose examples are sorted by length together: similar lengths meet, yet neighbours change each epoch."""

WIDTHS = {"cpu": 1}
"""Widths of batches are multiples of this, by kind of device; 8 on others, whose matrix units want it.

The kind of device alone decides, not whether the step is compiled (for any width), so that compilation changes no draw
of dropout.
"""


def multiple_of(device: str) -> int:
    """Return what widths of batches are multiples of on a kind of device."""
    return WIDTHS.get(device, 8)


def padding_share(lengths: np.ndarray, recipe: Recipe, seed: int, multiple: int) -> float:
    """Return the share of padding among the positions of a phase's first epoch; later ones differ by their shuffling.

    Args:
        lengths: (n,) token counts of the examples that are trained on.
        recipe: how they are batched.
        seed: of the run.
        multiple: widths are multiples of it.
    """
    stream = batches(lengths, recipe.batch_size, seed, 0, recipe.shuffle, recipe.bucket)
    positions = sum(len(index) * padded(lengths, index, multiple) for index in stream)
    return 1 - int(np.sum(lengths)) / positions


def batches(
    lengths: np.ndarray,
    batch_size: int,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    bucket: bool | int = True,
    drop_last: bool = False,
) -> list[np.ndarray]:
    """Cut one epoch into batches of example ids.

    All examples are permuted; with ``bucket``, pools of batches are sorted by length before they are cut, and the
    batches are permuted again. Every example comes exactly once (``drop_last`` leaves out a short batch).

    Args:
        lengths: (n,) token counts.
        batch_size: examples a batch.
        seed: of the run.
        epoch: counts from 0; each has its own order.
        shuffle: False keeps the order of the data (``bucket`` is then without effect).
        bucket: batches of a pool; True = :data:`POOL`, False mixes lengths.
        drop_last: leave out the batch that is not full.

    Raises:
        ValueError: ``batch_size`` below 1, or no batch at all.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: at least 1")
    n = len(lengths)
    if not n or (drop_last and n < batch_size):
        raise ValueError(f"{n} example(s) make no batch of {batch_size}: lower recipe.batch_size or take more data")
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(n) if shuffle else np.arange(n)
    if shuffle and bucket:
        size = batch_size * (POOL if bucket is True else bucket)
        pools = [order[i : i + size] for i in range(0, n, size)]
        # A stable sort of permuted ids: ties stay in random order.
        order = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    out = [order[i : i + batch_size] for i in range(0, n, batch_size)]
    if drop_last and len(out[-1]) < batch_size:
        out.pop()
    if shuffle and bucket:
        out = [out[i] for i in rng.permutation(len(out))]
    return out


def evaluation_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """All examples once, sorted by length (least padding), the same every time."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: at least 1")
    order = np.argsort(np.asarray(lengths), kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def padded(lengths: np.ndarray, index: np.ndarray, multiple: int = 8, limit: int | None = None) -> int:
    """Width of a batch: its longest example rounded up to ``multiple``, so that few shapes are compiled.

    Args:
        lengths: (n,) token counts of the split.
        index: (B,) examples of the batch.
        multiple: 1 pads to the longest example only.
        limit: never wider than this (the model's positions), unless an example is.
    """
    longest = int(np.max(np.asarray(lengths)[index]))
    width = -(-longest // multiple) * multiple
    return max(longest, min(width, limit)) if limit else width
