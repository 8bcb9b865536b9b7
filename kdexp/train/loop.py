"""THE training loop: several students (a gang) on one stream of batches and one teacher forward pass.

A single run is a gang of one. Randomness is re-seeded at every micro-batch from (seed, step), so a student's path
does not depend on who trains beside it, and a resumed phase is bit-equal to an undisturbed one on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdexp.common.files import Interrupted
from kdexp.objectives.base import Features
from kdexp.tasks.base import Encoded
from kdexp.train import optim
from kdexp.train.batching import batches
from kdexp.train.student import Member, seed_of

__all__ = ["Interrupted", "Schedule", "train"]


@dataclass
class Schedule:
    """What the loop needs to know beside the students: the recipe and the machinery's habits."""

    recipe: dict[str, Any]
    seed: int
    device: torch.device
    pad_multiple: int = 8
    log_every: int = 20
    checkpoint_s: float = 120.0
    stop: Callable[[], bool] = lambda: False
    saved: Callable[[], None] = lambda: None
    tick: Callable[[Member, int, int, int], None] = lambda member, step, total, examples: None


def train(gang: list[Member], signal: Callable[[dict], Features] | None, data: Encoded, plan: Schedule) -> None:
    """Train every student of a gang to its end.

    Args:
        gang: students that share seed and recipe; they continue from their own (equal) progress.
        signal: the teacher, or None if no objective listens to one.
        data: the training split.
        plan: recipe, seed, device and habits.

    Raises:
        Interrupted: ``plan.stop()`` became true; all students' states are on disk.
    """
    recipe, rows = plan.recipe, subset(len(data), plan.recipe["examples"])
    total = optim.updates(len(rows), recipe)
    epochs = -(-total // -(-len(rows) // recipe["batch_size"]))
    saved = time.monotonic()
    first = gang[0].progress
    for epoch in range(first.epoch, epochs):
        stream = batches(
            data.lengths[rows],
            recipe["batch_size"],
            plan.seed,
            epoch,
            shuffle=recipe["shuffle"],
            bucket=recipe["bucket"],
        )
        for member in gang:
            member.begin_epoch(epoch, epochs)
        for number in range(first.batch, len(stream)):
            active = [m for m in gang if not m.progress.stopped and m.progress.step < total]
            if not active:
                break
            step = active[0].progress.step
            for micro, (batch, index) in enumerate(_micro_batches(data, rows[stream[number]], plan)):
                torch.manual_seed(seed_of(plan.seed, step, micro) + 1)  # for a teacher that keeps its dropout on
                target = signal(batch) if signal else None
                for member in active:
                    member.backward(batch, target, index, plan.seed, step, micro)
            for member in active:
                member.update(optim.rate(step, total, recipe), recipe["clip"])
                last = number + 1 == len(stream)
                if (recipe["eval_every"] and (step + 1) % recipe["eval_every"] == 0) or last or step + 1 == total:
                    member.evaluate(epoch, recipe["patience"])
                if (step + 1) % plan.log_every == 0:
                    member.log(epoch)
                plan.tick(member, step + 1, total, len(stream[number]))
            for member in gang:
                member.progress.batch = number + 1
            if plan.stop() or time.monotonic() - saved >= plan.checkpoint_s:
                for member in gang:
                    member.checkpoint()
                plan.saved()
                saved = time.monotonic()
                if plan.stop():
                    raise Interrupted(f"stopped at step {step + 1} of {total}; the same command continues there")
        for member in gang:
            member.progress.epoch, member.progress.batch = epoch + 1, 0


def subset(n: int, examples: int | None) -> np.ndarray:
    """Return the ids of the training examples that a recipe uses: all, or the same random ``examples`` every time."""
    if examples is None or examples >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).permutation(n)[:examples])


def _micro_batches(
    data: Encoded, index: np.ndarray, plan: Schedule
) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Split one batch into equal micro-batches on the device, each with the whole batch's labels and mask beside it.

    All are padded to the width of the whole batch, so that accumulating equals one big batch.
    """
    width = int(-(-int(data.lengths[index].max()) // plan.pad_multiple) * plan.pad_multiple)
    whole = {k: v.to(plan.device, non_blocking=True) for k, v in data.batch(index, pad_to=width).items()}
    parts = plan.recipe["accumulation"]
    if parts == 1:
        return [(whole, whole)]
    cuts = [c for c in np.array_split(np.arange(len(index)), parts) if len(c)]
    return [({k: v[c[0] : c[-1] + 1] for k, v in whole.items()}, whole) for c in cuts]
