"""kdexp itself: the phase as a run carries it out, with the teacher run on every batch or looked up."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from bench.contestants.base import Given
from bench.workloads import OBJECTIVES, Examples
from kdexp.common import machine
from kdexp.config.identity import digest
from kdexp.heads.batch import Batch, Targets
from kdexp.run import spec
from kdexp.store.stage import Stage
from kdexp.store.store import Finished
from kdexp.tasks.base import Dataset
from kdexp.train.batching import multiple_of, padded
from kdexp.train.context import RunContext
from kdexp.train.phase import Phase
from kdexp.train.student import Student


@dataclass
class Stream(Dataset):
    """The examples of a cell as kdexp's data."""

    examples: Examples

    def __len__(self) -> int:
        return len(self.examples.lengths)

    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Batch:
        """Make one batch."""
        inputs = {name: torch.from_numpy(x) for name, x in self.examples.padded(index, width).items()}
        labels, mask = inputs.pop("labels"), inputs["attention_mask"]
        return Batch(inputs, mask, {"label": labels}, torch.from_numpy(np.asarray(index)))

    @property
    def targets(self) -> Targets:
        """The labels."""
        return {"label": self.examples.labels}

    @property
    def costs(self) -> np.ndarray:
        """Token counts."""
        return self.examples.lengths

    def vocabulary(self) -> np.ndarray:
        """Return the ids that the whole training split uses."""
        return self.examples.vocabulary


class Measured(Phase):
    """A phase on the examples of a cell."""

    def __init__(self, stage: Stage, inputs: dict[str, Finished], work: Path, context: RunContext, data: Dataset):
        super().__init__(stage, inputs, work, context)
        self.splits = {"train": data}

    def data(self) -> dict[str, Dataset]:
        """Return the only split."""
        return self.splits


def live(given: Given) -> None:
    """Train without end, the teacher being run on every batch."""
    _train(given, "off")


def cached(given: Given) -> None:
    """Train without end, the teacher being looked up; what it says is stored before the clock starts."""
    _train(given, "1TB")


def _train(given: Given, cache: str) -> None:
    cell, folder = given.cell, given.folder
    config, problems = spec.typed({**given.config, "runtime": {**given.config["runtime"], "teacher_cache": cache}})
    if config is None:
        raise ValueError(" ".join(problems))
    torch.set_num_threads(cell.threads)
    dtype = machine.decide_dtype(cell.dtype, cell.device)
    context = RunContext(config, torch.device(cell.device), dtype, cell.threads, folder / "store" / "cache")
    models = {role: folder / "models" / cell.model / role for role in ("teacher", "student")}
    stage = Stage(
        f"{cell.objective} {cache}",
        "distill.train_student",
        {
            "phase": OBJECTIVES[cell.objective], "terms": given.terms, "recipe": config.recipe.model_dump(), "seed": 1,
            "selection": "last", "origin": "bench", "data": digest(asdict(cell)), "heldout": 0.0, "task": config.task,
            "teacher": config.teacher.model_dump(mode="json"),
        },
    )  # fmt: skip
    kept = {
        "teacher": Finished(models["teacher"], {"files": {"model.safetensors": cell.model}, "summary": {}}),
        "start": Finished(models["student"], {"files": {}, "summary": {"init": {"name": "bench"}}}),
    }
    work = folder / "work" / f"{cache}"
    work.mkdir(parents=True, exist_ok=True)
    phase = Measured(stage, kept, work, context, Stream(given.examples))
    student = phase.student(phase.model(), used_rows=True)
    began = time.perf_counter()
    teacher = phase.teacher(student)
    seconds = time.perf_counter() - began
    data = phase.data()["train"]
    width = padded(data.costs, given.first, multiple_of(cell.device))
    batch = data.collate(given.first, None, width).to(context.device)
    student.model.eval()
    with torch.no_grad():
        one = {name: torch.ones((), device=context.device) for name in student.objectives}
        loss, _ = student.step(batch, teacher(batch) if teacher else None, one)
    stream = given.examples.batches(given.examples.bucketed, cell.batch)
    positions = [len(index) * padded(data.costs, index, multiple_of(cell.device)) for index in stream]
    given.clock.ready(
        float(loss), positions, dtype=dtype, compiled=cell.compile, teacher=context.facts["teacher"][stage.name]["why"],
        filled_s=seconds if cache != "off" else None, vocabulary=phase.summary.vocabulary,
    )  # fmt: skip

    def tick(student: Student, step: int) -> None:
        given.clock.tick()

    phase.train(student, teacher, after_update=tick)
