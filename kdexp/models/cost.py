"""What a model costs to use: floating-point operations and latency, measured with warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from kdexp.heads.batch import Batch

WARMUP, REPEATS = 3, 15


def measure(model: nn.Module, device: torch.device, specimen: Callable[[int], Batch]) -> dict[str, float]:
    """Return operations an example and latencies of a model, in evaluation mode and float32.

    Args:
        model: any model.
        device: where to time it.
        specimen: makes a batch of so many examples of full size.

    Returns:
        ``gflop_per_example`` (a multiply-add counts as 2) and for batches of 1 and 32
        ``<device>_batch<n>_median_ms`` and ``..._p95_ms`` (whole batch, milliseconds).
    """
    from torch.utils.flop_counter import FlopCounterMode

    model = model.to(device).eval()
    found: dict[str, float] = {}
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            model(**specimen(1).to(device).inputs)
        found["gflop_per_example"] = round(counter.get_total_flops() / 1e9, 4)
        for size in (1, 32):
            times = _times(model, specimen(size).to(device), device)
            found[f"{device.type}_batch{size}_median_ms"] = round(float(np.median(times)), 3)
            found[f"{device.type}_batch{size}_p95_ms"] = round(float(np.percentile(times, 95)), 3)
    return found


def _times(model: nn.Module, batch: Batch, device: torch.device) -> list[float]:
    """Time single calls, in milliseconds, after a few that do not count."""
    times = []
    for number in range(WARMUP + REPEATS):
        began = time.perf_counter()
        model(**batch.inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= WARMUP:
            times.append(1000 * (time.perf_counter() - began))
    return times
