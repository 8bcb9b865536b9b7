"""Crops and mirror images, drawn as a pure function of (seed, epoch, example id).

No generator has a state: whoever makes an example of an epoch, in whatever batch, order or process, draws the same.

Legend: B examples, H height, W width of an image, 3 colours, n numbers drawn an example.
"""

from __future__ import annotations

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def _mixed(x: np.ndarray) -> np.ndarray:
    """Spread the bits of 64-bit numbers: the output function of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _FACTORS[0]
    x = (x ^ (x >> np.uint64(27))) * _FACTORS[1]
    return x ^ (x >> np.uint64(31))


def draws(seed: int, epoch: int, ids: np.ndarray, n: int) -> np.ndarray:
    """Return ``n`` 64-bit numbers for each example, (B, n): hashes of seed, epoch, id and place.

    Args:
        seed: of the run.
        epoch: counts from 0.
        ids: (B,) example ids.
    """
    key = np.zeros(1, dtype=np.uint64)
    for part in (np.array([seed]), np.array([epoch]), np.asarray(ids)):
        key = _mixed((key ^ (part.astype(np.uint64) * _STEP)) + _STEP)
    rows = key
    return _mixed(rows[:, None] + np.arange(1, n + 1, dtype=np.uint64) * _STEP)


def augmented(pixels_BHW3: np.ndarray, numbers: np.ndarray, pad: int, flip: bool) -> np.ndarray:
    """Return images with a black border of ``pad`` pixels, cut to their former size at a random place, maybe mirrored.

    Each of the (2 pad + 1)^2 places is as likely as any other, and so are both directions.

    Args:
        pixels_BHW3: bytes.
        numbers: (B, 3) from :func:`draws`: the row, the column, and the direction.
        pad: 0 = no crops.
        flip: mirror half of them, left to right.
    """
    count, height, width = pixels_BHW3.shape[:3]
    bordered = np.pad(pixels_BHW3, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    top, left = (numbers[:, place] % np.uint64(2 * pad + 1) for place in (0, 1))
    rows = top.astype(np.int64)[:, None] + np.arange(height)
    columns = left.astype(np.int64)[:, None] + np.arange(width)
    if flip:
        mirrored = (numbers[:, 2] >> np.uint64(63)).astype(bool)
        columns = np.where(mirrored[:, None], columns[:, ::-1], columns)
    return bordered[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
