"""What runs will take on the disk, from their configurations alone: said before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from kdexp.common import files
from kdexp.common.registry import build
from kdexp.config.schema import Config
from kdexp.methods import pretraining
from kdexp.models import build as models
from kdexp.models import source
from kdexp.run.spec import RunSpec

WIDTH = 4
"""Bytes of a weight: fp32, whatever the arithmetic."""
TRAINED = 4
"""Models' worth of memory of a student in training."""
STEP_GB = 0.3
"""GiB that a step is guessed to need on its way."""
UNDER_WAY = 7
"""Models' worth of a phase that is under way: weights and two moments in the checkpoint and in its successor, and the
best weights so far."""


def said(todo: Sequence[RunSpec], done: Iterable[RunSpec] = ()) -> str:
    """Return what the disk of a study's store must hold, beside what is free there.

    Args:
        todo: runs that are still to come; they share a store.
        done: finished runs; the stages that these needed are there.
    """
    if not todo:
        return "nothing more is needed"
    place = Path(todo[0].config.runtime.store).expanduser().absolute()
    free = files.free(place)
    there = f"{files.said(free)} are free in {place}"
    try:
        stays, meanwhile = needed(todo, done)
    except (OSError, ValueError):  # weights that only the hub has, and it cannot be asked
        return f"not known; {there}"
    sentence = f"about {files.said(stays)} stay, {files.said(meanwhile)} more for each run under way; {there}"
    return sentence if stays + meanwhile < free else f"{sentence}: TOO LITTLE"


def needed(todo: Iterable[RunSpec], done: Iterable[RunSpec] = ()) -> tuple[int, int]:
    """Return the bytes of weights that runs leave in the store, and of those that one run at a time needs on its way.

    Counted are models: every phase makes one, once however many runs share it; ``runtime.keep_weights`` says which
    students stay. Records, logs and tokenised texts are small beside them; what a method keeps of its own (the
    stations of a teacher's trajectory) is not counted.

    Args:
        todo: runs that are still to come.
        done: finished runs; the stages that these needed are there.
    """
    known = {stage.key for run in done for stage in run.outline}
    stays = meanwhile = 0
    sizes: dict[str, tuple[int, int]] = {}
    for run in todo:
        name = repr((run.config.teacher, source.own(run.config), run.config.student, run.config.task))
        if name not in sizes:
            sizes[name] = _models(run.config)
        big, small = sizes[name]
        fresh = [stage for stage in run.outline if stage.key not in known]
        known |= {stage.key for stage in fresh}
        way = small * sum(stage.role != "teacher" for stage in run.outline[:-1])  # phases are kept until the run's end
        for stage in fresh:
            is_teacher = stage.role == "teacher" or stage.name == pretraining.NAME
            kept = {"all": True, "final": stage is run.outline[-1], "none": False}[run.config.runtime.keep_weights]
            stays += big if is_teacher else small * (kept or stage.shared)
            meanwhile = max(meanwhile, UNDER_WAY * (big if is_teacher else small) + way)
    return stays, meanwhile


def in_training_gb(config: Config) -> tuple[float, float]:
    """Return the memory (GiB) of a teacher that is only asked, and of a student in training beside it.

    The student's weights, gradients and two moments; what its steps need on their way is guessed to be as much as the
    measured students of MiniLM's and BERT's width took.
    """
    teacher, student = (size / 2**30 for size in _models(config))
    return teacher, TRAINED * student + STEP_GB


def _models(config: Config) -> tuple[int, int]:
    """Return the bytes of a teacher and of its student."""
    head = build(config.task).head
    small = models.count(source.of_student(config), head, config.student)
    sizes = models.count(config.teacher, head), small
    return WIDTH * sizes[0], WIDTH * sizes[1]
