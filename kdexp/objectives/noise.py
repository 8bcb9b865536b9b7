"""Random numbers that depend on (seed, epoch, example, position) only.

They are the same whatever the batch, the order, the device or an interruption, cost no synchronisation and compile.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0x7FFFFFFF


def _mix(x: Tensor) -> Tensor:
    """Scramble non-negative int64 numbers below 2^31 (xor-shift and multiply; products stay below 2^62)."""
    for factor in (0x2C1B3C6D, 0x297A2D39):
        x = ((x ^ (x >> 15)) * factor) & _MASK
        x = x ^ (x >> 12)
    return x


def uniform(seed: int, epoch: Tensor, index: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1), float64, (B, count): one row an example id.

    Args:
        seed: of the run.
        epoch: scalar int64 tensor.
        index: (B,) example ids.
    """
    key = _mix((epoch + 7919 * (seed & 0xFFFF) + 1) & _MASK)
    rows = _mix((index.long() & _MASK) ^ key)
    positions = _mix(torch.arange(1, count + 1, device=index.device) * 40503 & _MASK)
    return _mix(_mix(rows[:, None] ^ positions[None, :])).double() / (_MASK + 1)
