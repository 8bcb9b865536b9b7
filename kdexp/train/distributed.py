"""Several processes that train as one: what they tell each other, and the step whose gradients they share.

Each *rank* holds the whole student and works on its slice of every batch, weighted by its share of what each objective
averages over (:meth:`kdexp.objectives.base.Objective.units`), so that n ranks equal one process with the same batch: to
rounding, dropout included, one that takes the same slices one after another (``recipe.accumulation``). Rank 0 is the
run: it alone writes, measures, decides. The others carry out the same stages beside it, in folders that are thrown
away, and hear from it what it has found.

What is said between ranks are JSON and plain tensors.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdexp.heads.batch import Batch, Features
from kdexp.models.families import base as families

if TYPE_CHECKING:
    from kdexp.train.step import Step

Run = Callable[..., tuple[Tensor, Tensor]]
PATIENCE = timedelta(days=7)
"""How long a rank waits for another one: rank 0 may be measuring, or waiting for a stage of another run."""
NEVER = torch.iinfo(torch.long).max


@dataclass(eq=False)
class Ranks:
    """This process among those of a run; as it is made, the only one.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local: its number among those of this machine: the number of its GPU.
        last: the part at hand is this rank's last one of a batch: gradients are exchanged.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    last: bool = True

    @property
    def first(self) -> bool:
        """This is the process that writes, measures and decides."""
        return self.rank == 0

    def device(self, decided: str) -> torch.device:
        """Return where this rank computes, of what was decided for the run."""
        if self.size == 1 or decided == "cpu":
            return torch.device(decided)
        torch.cuda.set_device(self.local)
        return torch.device("cuda", self.local)

    def told(self, value: Any = None) -> Any:
        """Return what rank 0 says, a value that JSON knows; what the others give does not count."""
        if self.size == 1:
            return value
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8) if self.first else None
        length = torch.tensor([0 if text is None else len(text)])
        dist.broadcast(length, 0)
        text = torch.empty(int(length), dtype=torch.uint8) if text is None else text
        dist.broadcast(text, 0)
        return value if self.first else json.loads(bytes(text.tolist()))

    def shared(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return rank 0's tensors, by name; what the others give does not count."""
        if self.size == 1:
            return dict(tensors)
        about = [[name, [*t.shape], str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()]
        out = {}
        for name, shape, dtype in self.told(about):
            here = tensors[name].detach().cpu().contiguous() if self.first else None
            out[name] = torch.empty(shape, dtype=getattr(torch, dtype)) if here is None else here
            dist.broadcast(out[name], 0)
        return dict(tensors) if self.first else out

    def agreed(self, *flags: bool) -> list[bool]:
        """Return for each flag whether any rank raises it; no device is waited for."""
        if self.size == 1:
            return list(flags)
        raised = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised]

    def summed(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    def earliest(self, steps: Tensor) -> Tensor:
        """Return the smallest step that any rank names, 0 where none does."""
        if self.size == 1:
            return steps
        named = torch.where(steps > 0, steps, NEVER)
        dist.all_reduce(named, dist.ReduceOp.MIN)
        return torch.where(named == NEVER, 0, named)

    def in_turn(self, work: Callable[[], Any]) -> Any:
        """Let rank 0 do something that leaves files, then all others, who find them."""
        if self.size > 1 and not self.first:
            dist.barrier()
        done = work()
        if self.size > 1 and self.first:
            dist.barrier()
        return done

    def turn(self, part: int, parts: int) -> int:
        """Note that this rank's part ``part`` of ``parts`` of a batch is at hand; return its number among all."""
        self.last = part + 1 == parts
        return part * self.size + self.rank

    def beside(self, step: Step, run: Run) -> Run:
        """Return ``run`` for a step whose gradients are summed over all ranks at each one's last part of a batch."""
        if self.size == 1 or not any(p.requires_grad for p in step.parameters()):
            return run
        together = DistributedDataParallel(_Runner(step, run), forward_sync_buffers=False, find_unused_parameters=True)

        def both(_: Step, batch: Batch, target: Features | None, shares: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            with contextlib.nullcontext() if self.last else together.no_sync():
                total, values = together(batch, target, shares)
            return total * self.size, values  # the wrapper averages; parts are weighted already, and add up

        return both

    def shard(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Spread a frozen model's weights over all ranks, block by block; each is whole only while it is run.

        Args:
            model: in memory; its weights go to the devices here, each rank's part alone.
            device: where this rank computes.
        """
        from torch.distributed import fsdp  # imports that few runs need
        from torch.distributed.device_mesh import init_device_mesh

        mesh = init_device_mesh(device.type, (self.size,))
        for block in families.of(model).layers(model):
            fsdp.fully_shard(block, mesh=mesh)
        fsdp.fully_shard(model, mesh=mesh)
        return model.to(device)  # its buffers


ALONE = Ranks()
"""The only process of a run."""


class _Runner(nn.Module):
    """What the parallel wrapper wraps: a step together with how it is run, perhaps compiled."""

    def __init__(self, step: Step, run: Run) -> None:
        super().__init__()
        self.step, self.run = step, run

    def forward(self, batch: Batch, target: Features | None, shares: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.run(self.step, batch, target, shares)


def meet(store: dist.Store, rank: int, size: int, local: int) -> Ranks:
    """Join the other processes of a run.

    Args:
        store: where they find each other.
    """
    dist.init_process_group(_backend(), store=store, rank=rank, world_size=size, timeout=PATIENCE)
    return Ranks(rank, size, local)


def meet_torchrun() -> Ranks:
    """Join the processes that ``torchrun`` has started together with this one."""
    dist.init_process_group(_backend(), timeout=PATIENCE)
    return Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


def _backend() -> str:
    """Return what carries messages: what is said lies in memory, gradients where they are computed."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"


def part() -> None:
    """Leave the other processes of a run."""
    if dist.is_initialized():
        dist.destroy_process_group()
