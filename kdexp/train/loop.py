"""THE training loop: a student on a stream of batches, with what a teacher says of each.

Randomness is re-seeded at every micro-batch from (seed, step), so a student's path does not depend on who takes turns
with it (:mod:`kdexp.train.shared`), and a resumed phase is bit-equal to an undisturbed one on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from kdexp.common.files import Interrupted
from kdexp.config.schema import Recipe
from kdexp.heads.batch import Batch
from kdexp.tasks.base import Dataset
from kdexp.train import optim
from kdexp.train.batching import batches, padded
from kdexp.train.distributed import ALONE, Ranks
from kdexp.train.student import Student, seed_of
from kdexp.train.teachers import Teacher

__all__ = ["Interrupted", "LoopSettings", "subset", "train"]


@dataclass
class LoopSettings:
    """What the loop needs to know beside the student: the recipe and the machinery's habits.

    Attributes:
        recipe: how to optimise.
        seed: of batch order and dropout.
        device: where batches go.
        span: (i, n): part i (from 0) of n equal phases that are one: the learning rate, the order of the data and
            everything drawn at random go on from the part before.
        pad_multiple: widths of batches are multiples of it (:func:`kdexp.train.batching.multiple_of`).
        log_every: updates between two lines of metrics.
        checkpoint_s: seconds between two checkpoints.
        stop: becomes true when training is asked to stop.
        saved: told when a checkpoint is complete.
        turn: called with (number, micro-batch) before a teacher is asked: others may be waited for. ``number`` counts
            updates over all parts.
        after_update: called with (student, updates done) after every update: the place to keep files on the way.
        show: progress display: (student, updates done, total, examples of this update).
        ranks: the processes that train together; each has a slice of every batch.
        new_pass: called before every micro-batch (:func:`kdexp.train.compiling.new_pass`).
    """

    recipe: Recipe
    seed: int
    device: torch.device
    span: tuple[int, int] = (0, 1)
    pad_multiple: int = 8
    log_every: int = 20
    checkpoint_s: float = 120.0
    stop: Callable[[], bool] = lambda: False
    saved: Callable[[], None] = lambda: None
    turn: Callable[[int, int], None] = lambda number, micro: None
    after_update: Callable[[Student, int], None] = lambda student, step: None
    show: Callable[[Student, int, int, int], None] = lambda student, step, total, examples: None
    ranks: Ranks = ALONE
    new_pass: Callable[[], None] = lambda: None


def train(student: Student, teacher: Teacher | None, data: Dataset, settings: LoopSettings) -> None:
    """Train a student to its end, from where it stands.

    Args:
        student: continues from its own progress.
        teacher: a function from a batch to features, or None if no objective listens to one.
        data: the training split.
        settings: recipe, seed, device and habits.

    Raises:
        Interrupted: ``settings.stop()`` became true; a checkpoint is on disk.
        Diverged: a loss, gradient or weight is not finite.
    """
    recipe, rows, progress = settings.recipe, subset(len(data), settings.recipe.examples), student.progress
    total = optim.updates(len(rows), recipe)
    epochs = -(-total // -(-len(rows) // recipe.batch_size))
    costs, saved = data.costs, time.monotonic()
    before = settings.span[0]  # parts of the same length
    for epoch in range(progress.epoch, epochs):
        order = before * epochs + epoch
        stream = batches(costs[rows], recipe.batch_size, settings.seed, order, recipe.shuffle, recipe.bucket)
        drawn = data.in_epoch(settings.seed, order)
        student.begin_epoch(epoch, epochs)
        for number in range(progress.batch, len(stream)):
            if progress.stopped or progress.step >= total:
                break
            step = progress.step
            draw = before * total + step
            parts = _micro_batches(drawn, rows[stream[number]], settings, draw)
            for part, (batch, whole) in enumerate(parts):
                micro = settings.ranks.turn(part, len(parts))
                settings.turn(draw, micro)
                settings.new_pass()
                torch.manual_seed(seed_of(settings.seed, draw, micro) + 1)  # for a teacher that keeps its dropout on
                target = teacher(batch) if teacher else None
                student.backward(batch, target, whole, settings.seed, draw, micro)
            student.update(optim.rate(step, total, recipe, settings.span), draw + 1)
            last = number + 1 == len(stream)
            if (recipe.eval_every and (step + 1) % recipe.eval_every == 0) or last or step + 1 == total:
                student.evaluate(epoch, recipe.patience)
            if (step + 1) % settings.log_every == 0:
                student.log(epoch)
            settings.after_update(student, step + 1)
            settings.show(student, step + 1, total, len(stream[number]))
            progress.batch = number + 1
            due = settings.ranks.first and time.monotonic() - saved >= settings.checkpoint_s
            stop, due = settings.ranks.agreed(settings.stop(), due)
            if stop or due:
                student.checkpoint()
                settings.saved()
                saved = time.monotonic()
                if stop:
                    raise Interrupted(f"stopped at step {step + 1} of {total}; the same command continues there")
        progress.epoch, progress.batch = epoch + 1, 0


def subset(n: int, examples: int | None) -> np.ndarray:
    """Return the ids of the training examples that a recipe uses: all, or the same random ``examples`` every time."""
    if examples is None or examples >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).permutation(n)[:examples])


def _micro_batches(
    data: Dataset, index: np.ndarray, settings: LoopSettings, step: int = 0
) -> list[tuple[Batch, Batch | None]]:
    """Split one batch into equal micro-batches on the device, each with the whole batch beside it.

    All are padded to the width of the whole batch, so that accumulating equals one big batch. Of several processes
    each has its own; all have as many, so one that has run out of examples works on some with None beside them.
    """
    width = padded(data.costs, index, settings.pad_multiple)
    whole = data.collate(index, seed_of(settings.seed, step, 0), width).to(settings.device)
    parts, ranks = settings.recipe.accumulation, settings.ranks
    if parts * ranks.size == 1:
        return [(whole, whole)]
    cuts = np.array_split(np.arange(len(index)), parts * ranks.size)
    rounds = [cuts[i : i + ranks.size] for i in range(0, len(cuts), ranks.size)]
    mine = [each[ranks.rank] for each in rounds if len(each[0])]
    return [(whole.part(slice(c[0], c[-1] + 1)), whole) if len(c) else (whole.part(slice(0, 1)), None) for c in mine]
