"""A saved model that is delivered, and the rows it is checked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kdexp.common import results
from kdexp.common.registry import build
from kdexp.delivery.form import Runner
from kdexp.heads.batch import Batch, Predictions
from kdexp.run import predict
from kdexp.tasks.base import Dataset, Task
from kdexp.train import answered
from kdexp.train.batching import evaluation_batches

BATCH = 32
"""Examples a batch wherever scores are taken."""


@dataclass(frozen=True)
class Subject:
    """A model, its task, its data.

    Attributes:
        who: ``student`` or ``teacher``, as the table says it.
        folder: config.json, weights, tokenizer.
        settings: of the task, as in a configuration.
        root: local data root, or None.
        cache: folder for tokenised texts.
        result: of the run that made it; None = it is a folder of somebody's.
        teacher: folder of the stage that has labelled what nobody has labelled; None = there is none.
        place: folder below the delivery's own that its forms go to ('' = that itself); None = they are only compared.
    """

    who: str
    folder: Path
    settings: dict[str, Any]
    root: str | None
    cache: Path
    result: Mapping[str, Any] | None = None
    place: str | None = ""
    teacher: Path | None = None

    @cached_property
    def task(self) -> Task:
        """What it answers."""
        made: Task = build(self.settings)
        return made

    @property
    def asked(self) -> predict.Asked:
        """As a prediction takes it; says what is wrong with the folder."""
        return predict.Asked(self.folder, self.task, "validation", None, self.root, self.cache, "cpu")

    @cached_property
    def data(self) -> dict[str, Dataset]:
        """The task's splits, read with the model's own tokenizer.

        Raises:
            ValueError: nobody has labelled validation, and the teacher that did is not in the store any more.
        """
        splits = dict(self.task.datasets(predict.context(self.asked)))
        if not splits["validation"].labelled:
            if self.teacher is None or not (self.teacher / answered.FILE.format(split="validation")).is_file():
                raise ValueError(
                    f"task={self.task.name} has no labels to score against: a teacher's answers were taken for them, "
                    "and that teacher is not in the store any more. Run it again, or name a task with labels."
                )
            splits["validation"] = answered.read(self.teacher, "validation", splits["validation"])
        return splits

    @cached_property
    def name(self) -> str:
        """The task's name as tables show it."""
        return self.task.shown_name(self.root)

    @property
    def notes(self) -> list[str]:
        """What has to be known of the rows that scores are taken on."""
        before = ((self.result or {}).get("task") or {}).get("data_hash")
        now = self.task.fingerprint(self.root, self.cache) if before else None
        said = f"they are not those of the run, whose content was {str(before)[:12]}; theirs is {str(now)[:12]}"
        return [said for _, said in self.task.marks(self.root)] + ([said] if now != before else [])

    def sample(self, split: str, batch: int = BATCH, seed: int = 0, full: bool = False) -> Iterator[Batch]:
        """Return batches of a split in a random order that is always the same.

        Args:
            split: its name.
            batch: examples a batch.
            seed: of the order.
            full: the last batch is filled up with the first examples, so that each has as many as its time is said of.
        """
        data = self.data[split]
        order = np.random.default_rng(seed).permutation(len(data))
        order = np.resize(order, -(-len(order) // batch) * batch) if full else order
        return (data.collate(order[start : start + batch]) for start in range(0, len(order), batch))


def of_run(folder: Path, root: str | None, cache: Path, settings: dict[str, Any]) -> list[Subject]:
    """Return a run's student and, if its weights are still in the store, its teacher; of a saved model, that alone.

    Args:
        folder: of a run, or of a saved model.
        root: local data root; None = a run's own.
        cache: as :class:`Subject` has it.
        settings: of the task, for a saved model.

    Raises:
        ValueError: the run has kept no weights.
    """
    weights, own = predict.of_run(folder)
    if own is None:
        return [Subject("student", weights, settings, root, cache)]
    root = root or yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())["data"]["root"]
    result = results.read(folder)
    taught = (result or {}).get("teacher")
    stage = weights.parent / str(taught["key"]) if taught and taught.get("key") else None
    subjects = [Subject("student", weights, own, root, cache, result, teacher=stage)]
    if stage is not None and (stage / "config.json").is_file():
        subjects.append(Subject("teacher", stage, own, root, cache, result, None, stage))
    return subjects


def answers(
    run: Runner, data: Dataset, task: Task, show: Callable[[int, int, int], None] = lambda done, of, rows: None
) -> tuple[Predictions, np.ndarray]:
    """Ask a form about every example of a split.

    Returns:
        What the head keeps for scoring, put together by example; and all outputs of the head in one flat float32 array,
        in an order that depends on the data alone, to be compared with another form's.
    """
    head, kept, flat = task.head, dict[str, list[Any]](), list[np.ndarray]()
    batches = evaluation_batches(data.costs, BATCH)
    for number, index in enumerate(batches, 1):
        batch = data.collate(index)
        outputs = run(batch.inputs)
        flat += [outputs[name].numpy().ravel() for name in head.names]
        for name, values in head.predictions(outputs, batch).items():
            places = kept.setdefault(name, [None] * len(data))
            for place, value in zip(index, values.numpy(), strict=True):
                places[place] = value
        show(number, len(batches), len(index))
    joined: dict[str, Any] = {
        name: np.stack(values) if len({value.shape for value in values}) == 1 else values
        for name, values in kept.items()
    }
    return data.gather(joined), np.concatenate(flat).astype(np.float32)
