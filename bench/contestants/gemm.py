"""Matrix products of the shapes of the two models, and nothing else: what the machine can give."""

from __future__ import annotations

import torch

from bench.contestants.base import Given


def train(given: Given) -> None:
    """Multiply without end: positions of an average update by the weights of a layer, forwards only."""
    width, device = given.cell.shape.width, given.cell.device
    stream = given.examples.batches(given.examples.bucketed, given.cell.batch)
    positions = sum(given.examples.positions(stream)) // len(stream)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device != "cpu" and given.cell.dtype != "fp32" else torch.float32
    x, wide = (torch.randn(positions, n, device=device, dtype=dtype) for n in (width, 4 * width))
    weights = [torch.randn(n, width, device=device, dtype=dtype) for n in (width, width, width, width, 4 * width)]
    back = torch.randn(width, 4 * width, device=device, dtype=dtype)
    given.clock.ready(None, [positions] * given.cell.updates)
    with torch.no_grad():
        while True:
            for _ in range(given.cell.shape.teacher + 3 * given.cell.shape.student):
                for weight in weights:
                    torch.nn.functional.linear(x, weight)
                torch.nn.functional.linear(wide, back)
            given.clock.tick()
