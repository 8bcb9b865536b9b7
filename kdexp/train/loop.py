"""THE training loop: several students (a cohort) on one stream of batches and one teacher forward pass.

A single run is a cohort of one. Randomness is re-seeded at every micro-batch from (seed, step), so a student's path
does not depend on who trains beside it, and a resumed phase is bit-equal to an undisturbed one on a CPU.
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
from kdexp.train.student import Student, seed_of
from kdexp.train.teachers import Teacher

__all__ = ["Interrupted", "LoopSettings", "subset", "train"]


@dataclass
class LoopSettings:
    """What the loop needs to know beside the students: the recipe and the machinery's habits.

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
        saved: told when all checkpoints are complete.
        after_update: called with (student, updates done) after every update: the place to keep files on the way.
        show: progress display: (student, updates done, total, examples of this update).
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
    after_update: Callable[[Student, int], None] = lambda student, step: None
    show: Callable[[Student, int, int, int], None] = lambda student, step, total, examples: None


def train(cohort: list[Student], teacher: Teacher | None, data: Dataset, settings: LoopSettings) -> None:
    """Train every student of a cohort to its end.

    Args:
        cohort: students that share seed and recipe; they continue from their own (equal) progress.
        teacher: a function from a batch to features, or None if no objective listens to one.
        data: the training split.
        settings: recipe, seed, device and habits.

    Raises:
        Interrupted: ``settings.stop()`` became true; all students' checkpoints are on disk.
        Diverged: a loss, gradient or weight is not finite.
    """
    recipe, rows = settings.recipe, subset(len(data), settings.recipe.examples)
    total = optim.updates(len(rows), recipe)
    epochs = -(-total // -(-len(rows) // recipe.batch_size))
    costs, saved, first = data.costs, time.monotonic(), cohort[0].progress
    before = settings.span[0]  # parts of the same length
    for epoch in range(first.epoch, epochs):
        order = {"shuffle": recipe.shuffle, "bucket": recipe.bucket}
        stream = batches(costs[rows], recipe.batch_size, settings.seed, before * epochs + epoch, **order)
        drawn = data.in_epoch(settings.seed, before * epochs + epoch)
        for student in cohort:
            student.begin_epoch(epoch, epochs)
        for number in range(first.batch, len(stream)):
            active = [s for s in cohort if not s.progress.stopped and s.progress.step < total]
            if not active:
                break
            step = active[0].progress.step
            draw = before * total + step
            for micro, (batch, whole) in enumerate(_micro_batches(drawn, rows[stream[number]], settings, draw)):
                torch.manual_seed(seed_of(settings.seed, draw, micro) + 1)  # for a teacher that keeps its dropout on
                target = teacher(batch) if teacher else None
                for student in active:
                    student.backward(batch, target, whole, settings.seed, draw, micro)
            for student in active:
                student.update(optim.rate(step, total, recipe, settings.span), draw + 1)
                last = number + 1 == len(stream)
                if (recipe.eval_every and (step + 1) % recipe.eval_every == 0) or last or step + 1 == total:
                    student.evaluate(epoch, recipe.patience)
                if (step + 1) % settings.log_every == 0:
                    student.log(epoch)
                settings.after_update(student, step + 1)
                settings.show(student, step + 1, total, len(stream[number]))
            for student in cohort:
                student.progress.batch = number + 1
            if settings.stop() or time.monotonic() - saved >= settings.checkpoint_s:
                for student in cohort:
                    student.checkpoint()
                settings.saved()
                saved = time.monotonic()
                if settings.stop():
                    raise Interrupted(f"stopped at step {step + 1} of {total}; the same command continues there")
        for student in cohort:
            student.progress.epoch, student.progress.batch = epoch + 1, 0


def subset(n: int, examples: int | None) -> np.ndarray:
    """Return the ids of the training examples that a recipe uses: all, or the same random ``examples`` every time."""
    if examples is None or examples >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).permutation(n)[:examples])


def _micro_batches(
    data: Dataset, index: np.ndarray, settings: LoopSettings, step: int = 0
) -> list[tuple[Batch, Batch]]:
    """Split one batch into equal micro-batches on the device, each with the whole batch beside it.

    All are padded to the width of the whole batch, so that accumulating equals one big batch.
    """
    width = padded(data.costs, index, settings.pad_multiple)
    whole = data.collate(index, seed_of(settings.seed, step, 0), width).to(settings.device)
    parts = settings.recipe.accumulation
    if parts == 1:
        return [(whole, whole)]
    cuts = [c for c in np.array_split(np.arange(len(index)), parts) if len(c)]
    return [(whole.part(slice(c[0], c[-1] + 1)), whole) for c in cuts]
