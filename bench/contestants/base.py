"""What a contestant is given, and the clock that it ticks."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import nn

from bench.workloads import LIMIT, Cell, Examples


class Ended(BaseException):
    """Nobody wants further updates; not an Exception, so that no loop takes it for a failure of its own."""


@dataclass
class Given:
    """What a contestant gets.

    Attributes:
        cell: what is compared.
        examples: of it.
        terms: of the objective.
        config: kdexp's own configuration, as plain values.
        folder: of the models, and for whatever is written.
        clock: to be told the first loss, then ticked after every update.
    """

    cell: Cell
    examples: Examples
    terms: dict[str, dict[str, Any]]
    config: dict[str, Any]
    folder: Path
    clock: Clock

    def model(self, role: str, attention: str) -> nn.Module:
        """Load the teacher or the student with an attention of transformers."""
        from transformers import BertForSequenceClassification

        path = self.folder / "models" / self.cell.model / role
        return BertForSequenceClassification.from_pretrained(path, attn_implementation=attention).to(self.cell.device)

    def stream(self) -> list[np.ndarray]:
        """Return the batches of example ids for another loop than kdexp's."""
        return self.examples.batches(getattr(self.examples, self.cell.order), self.cell.batch)

    @property
    def first(self) -> np.ndarray:
        """The examples of the batch whose loss is compared."""
        return self.examples.bucketed[: self.cell.batch]

    def tensors(self, index: np.ndarray, width: int | None = None) -> dict[str, torch.Tensor]:
        """Return a batch for the models of transformers."""
        return {
            name: torch.from_numpy(x).to(self.cell.device) for name, x in self.examples.padded(index, width).items()
        }


class Clock:
    """Talks to whoever measures: says when all is ready, waits, and times as many updates as are asked for.

    Args:
        inbox, outbox: lines of JSON.
        device: is waited for before a time is taken.
    """

    def __init__(self, inbox: TextIO, outbox: TextIO, device: str) -> None:
        self.inbox, self.outbox, self.device = inbox, outbox, device
        self.left, self.counter = 0, None
        self.loss = 0.0

    def ready(self, loss: float | None, positions: list[int], **facts: Any) -> None:
        """Say that everything is loaded, and wait for the first order.

        Args:
            loss: of the first batch, without dropout; None = there is none to compare.
            positions: padding included, of each update of a round, in their order.
            facts: further things to keep. ``shortened``: every update costs the same, so a part of them is enough.
        """
        self._send({"loss": loss, "positions": positions, **facts})
        self._wait()

    def tick(self) -> None:
        """Count an update.

        Raises:
            Ended: it was the last one.
        """
        self.left -= 1
        if self.left:
            return
        if self.device != "cpu":
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        work = None
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            work, self.counter = self.counter.get_total_flops(), None
        self._send({"wall": wall, "cpu": cpu, "updates": self.asked, "flops": work, "memory_mb": self._memory()})
        self._wait()

    def hook(self, optimizer: torch.optim.Optimizer) -> None:
        """Tick after every step of an optimiser: for loops that are not ours."""
        optimizer.register_step_post_hook(lambda *ignored: self.tick())

    def _memory(self) -> float:
        if self.device != "cpu":
            return torch.cuda.max_memory_allocated() / 1e6
        try:
            status = Path("/proc/self/status").read_text()
        except OSError:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        # Not ru_maxrss: that one begins with what the process had that started this one.
        return int(status.partition("VmHWM:")[2].split()[0]) / 1e3

    def _wait(self) -> None:
        order = json.loads(self.inbox.readline() or '{"updates": 0}')
        if not order["updates"]:
            raise Ended
        self.left = self.asked = order["updates"]
        if order.get("count"):
            from torch.utils.flop_counter import FlopCounterMode

            self.counter = FlopCounterMode(display=False, custom_mapping=_attention())
            self.counter.__enter__()
        if self.device != "cpu":
            torch.cuda.synchronize()
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def _send(self, message: dict[str, Any]) -> None:
        print(json.dumps(message), file=self.outbox, flush=True)


def _attention() -> dict[Any, Callable[..., int]]:
    """Return how the products of fused attention on a CPU are counted: PyTorch knows the GPU's only."""
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    def forward(q: Any, k: Any, v: Any, *rest: Any, out_val: Any = None, **more: Any) -> int:
        return sdpa_flop_count(q.shape, k.shape, v.shape)

    def backward(grad: Any, q: Any, k: Any, v: Any, *rest: Any, out_val: Any = None, **more: Any) -> int:
        return sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)

    for counted in (forward, backward):
        counted._get_raw = True  # type: ignore[attr-defined]
    ops = torch.ops.aten
    return {
        ops._scaled_dot_product_flash_attention_for_cpu: forward,
        ops._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }


def adamw(model: nn.Module) -> torch.optim.AdamW:
    """Return the optimiser as papers' code and toolkits' examples make it."""
    spared = ("bias", "LayerNorm.weight")
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if not n.endswith(spared)], "weight_decay": 0.01},
        {"params": [p for n, p in named if n.endswith(spared)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-4, eps=1e-6)


WIDE = LIMIT
"""Where the textbook loop pads to."""
