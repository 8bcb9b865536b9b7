"""The machinery around a stage: where it computes, how, and whom it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kdexp.common.registry import build
from kdexp.common.turns import Turns
from kdexp.config.resolve import source_folder, stated
from kdexp.config.schema import Config, Teacher
from kdexp.models import build as models
from kdexp.models import source
from kdexp.tasks.base import DataContext, Dataset, Task
from kdexp.train import reading
from kdexp.train.distributed import ALONE, Ranks
from kdexp.train.student import Student


@dataclass
class RunContext:
    """What the stages of one run share.

    Attributes:
        config: the resolved configuration of the run that carries the stage out.
        device: where it computes.
        dtype: ``fp32`` or ``bf16``.
        threads: of this process.
        cache: folder of prepared data.
        say: writes a line to the run's log.
        write: ``(stage, step, epoch, values)`` to the run's metrics file.
        stop: becomes true when the run is asked to stop.
        saved: told the key of a stage whenever a checkpoint of it is complete.
        show: progress display: ``show(stage, student, step, total, examples)``; no student while a teacher is asked.
            Only a display: whoever has something to do after an update uses the ``after_update`` of
            :meth:`kdexp.train.phase.Phase.train`.
        facts: filled by stages: what was decided, for the result.
        turns: of the runs of a cohort in this process; None = the run is alone.
        ranks: the processes that carry the run out together.
    """

    config: Config
    device: torch.device
    dtype: str
    threads: int
    cache: Path
    say: Callable[[str], None] = print
    write: Callable[[str, int, int, dict[str, float]], None] = lambda stage, step, epoch, values: None
    stop: Callable[[], bool] = lambda: False
    saved: Callable[[str], None] = lambda key: None
    show: Callable[[str, Student | None, int, int, int], None] = lambda stage, student, step, total, examples: None
    facts: dict[str, Any] = field(default_factory=dict)
    turns: Turns | None = None
    ranks: Ranks = ALONE

    @property
    def cast(self) -> torch.dtype | None:
        """The dtype of autocast, None for full precision."""
        return torch.bfloat16 if self.dtype == "bf16" else None

    def asked(self, done: int, total: int, examples: int) -> None:
        """Show how far a model is with the examples that it is asked."""
        self.show("answering", None, done, total, examples)

    def task(self) -> Task:
        """Make the run's task."""
        return build(self.config.task)

    def data(self, max_length: int, model: Teacher | None = None) -> dict[str, Dataset]:
        """Return the task's splits for inputs of at most ``max_length`` (cached on disk, shared by all processes).

        Args:
            model: whose tokenizer cuts texts; None = the student's (:mod:`kdexp.train.reading`).
        """
        return self.task().datasets(self.data_context(max_length, model or reading.of(self.config).student))

    def data_context(self, max_length: int, reader: Teacher) -> DataContext:
        """Return what the task is told when it is asked for its data, as a model reads them."""
        model, options = source.location(reader)
        folder = source_folder(reader.source, reader.commit)
        said = {} if folder is None else stated(folder)
        if not said.keys() >= source.OF_POSITIONS:  # defaults of its family, which transformers knows
            said = models.configuration(reader).to_dict()
        return DataContext(
            model=model,
            options=options,
            vocab_size=reader.vocab_size,
            positions=source.positions(said),
            max_length=max_length,
            root=self.config.data.root,
            heldout=self.config.data.heldout,
            cache=self.cache,
            say=self.say,
            who=reader.who,
            place=reader.place,
        )
