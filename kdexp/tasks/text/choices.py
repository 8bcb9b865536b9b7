"""Questions with several answers of which one is right: RACE, and sets of the same form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from kdexp.common.registry import build
from kdexp.heads.base import Head
from kdexp.tasks import metrics
from kdexp.tasks.base import Batch, Dataset, Predictions, Targets
from kdexp.tasks.text import encoding, files, leaderboard, values
from kdexp.tasks.text.arrays import Parts
from kdexp.tasks.text.encoding import LABEL, Encoded, of_arrays
from kdexp.tasks.text.records import Records, RecordTask
from kdexp.tasks.text.rows import Rows, held_groups

COLUMNS = {"context": "article", "question": "question", "answers": "options", "right": "answer"}
"""What each column is called, by what it holds."""
LETTERS = "ABCDEFGHIJ"


@dataclass
class Choices(Records):
    """Questions of one split; every list has an entry a question.

    Attributes:
        contexts, questions: texts; a question may be empty.
        answers: K texts each.
        right: (n,) which of them is right, from 0; None: nobody says.
    """

    contexts: list[str]
    questions: list[str]
    answers: list[list[str]]
    right: np.ndarray | None

    def __len__(self) -> int:
        return len(self.contexts)

    def take(self, index: np.ndarray) -> Choices:
        """See :meth:`Records.take`."""
        some = [int(i) for i in index]
        contexts, questions = [self.contexts[i] for i in some], [self.questions[i] for i in some]
        right = None if self.right is None else self.right[some]
        return Choices(contexts, questions, [self.answers[i] for i in some], right)

    def content(self) -> Iterable[Any]:
        """See :meth:`Records.content`."""
        right = [None] * len(self) if self.right is None else self.right.tolist()
        return zip(self.contexts, self.questions, self.answers, right, strict=True)

    def texts(self) -> list[str]:
        """Return all of a question in one."""
        rows = zip(self.contexts, self.questions, self.answers, strict=True)
        return [" ".join([context, question, *answers]) for context, question, answers in rows]


@dataclass
class ChoiceTask(RecordTask[Choices]):
    """Which of several answers is right? Each is read with the context and the question, which are cut for room.

    Attributes:
        choices: answers of every question.
        columns: what the columns are called, by what they hold.
    """

    by_example: ClassVar[bool] = True

    choices: Annotated[int, Field(ge=2, le=len(LETTERS))] = 4
    columns: dict[str, str] = field(default_factory=lambda: dict(COLUMNS))

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: naming everything that does not fit.
        """
        self.check_places()
        wrong = []
        if set(self.columns) != set(COLUMNS):
            wrong.append(f"task.columns={self.columns}: name the columns of {', '.join(COLUMNS)}")
        if set(self.metrics) != {"accuracy"} or self.metric != "accuracy":
            wrong.append(f"task.metrics={list(self.metrics)}: where one of several answers is right there is accuracy")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def head(self) -> Head:
        """A score an answer."""
        head: Head = build({"_target_": "kdexp.heads.choices.Choices", "choices": self.choices})
        return head

    def columns_asked(self, labelled: bool = True) -> dict[str, list[str]]:
        """See :meth:`Located.columns_asked`."""
        return {f"columns.{what}": [self.columns[what]] for what in COLUMNS if labelled or what != "right"}

    def reading(self) -> list[Any]:
        """See :meth:`RecordTask.reading`."""
        return [self.columns, self.choices]

    def read(self, path: Path, labelled: bool = True) -> Choices:
        """See :meth:`RecordTask.read`."""
        wanted = [self.columns[what] for what in COLUMNS if labelled or what != "right"]
        table = files.read(path, list(dict.fromkeys(wanted)))
        contexts, questions = (values.texts(table, self.columns[what]) for what in ("context", "question"))
        answers = table.columns[self.columns["answers"]]
        for row, given in enumerate(answers):
            if not isinstance(given, list) or len(given) != self.choices or not all(isinstance(a, str) for a in given):
                where = table.at(row, self.columns["answers"])
                raise ValueError(f"{where}: {given!r:.80} is no list of task.choices={self.choices} texts")
        right = None
        if labelled:
            said = table.columns[self.columns["right"]]
            right = np.array([self._right(table, row, one) for row, one in enumerate(said)], dtype=np.int64)
        return Choices(contexts, questions, answers, right)

    def _right(self, table: files.Table, row: int, said: Any) -> int:
        letters = LETTERS[: self.choices]
        if isinstance(said, str) and len(said.strip()) == 1 and said.strip().upper() in letters:
            return letters.index(said.strip().upper())
        if isinstance(said, int) and not isinstance(said, bool) and 0 <= said < self.choices:
            return said
        where, last = table.at(row, self.columns["right"]), self.choices - 1
        raise ValueError(f"{where}: {said!r} is neither one of {', '.join(letters)} nor a number from 0 to {last}")

    def counted(self, rows: Choices) -> dict[str, Any]:
        """Return questions, contexts, and how often each place is right."""
        counts = np.bincount(rows.right if rows.right is not None else [], minlength=self.choices).tolist()
        places = dict(zip(LETTERS[: self.choices], counts, strict=True))
        return {"rows": len(rows), "contexts": len(set(rows.contexts)), **places}

    def leaks(self, splits: Any) -> list[str]:
        """Name contexts that training shares with what is scored."""
        train, lines = set(splits["train"].contexts), []
        for name, rows in splits.items():
            both = train & set(rows.contexts)
            if name != "train" and both:
                lines.append(f"task {self.name}: {len(both)} contexts of {name} are in train too: no clean score")
        return lines

    def apart(self, train: Choices, share: float) -> np.ndarray:
        """Hold out whole contexts, so that no text stands on both sides; a question without one is by itself.

        Raises:
            ValueError: there are too few contexts.
        """
        groups = [text if text.strip() else f"question {row}" for row, text in enumerate(train.contexts)]
        if share and len(set(groups)) < 2:
            raise ValueError(f"data.heldout={share} holds whole contexts out, and train has one: use data.heldout=0")
        return held_groups(groups, share)

    def encoding(self) -> list[Any]:
        """See :meth:`RecordTask.encoding`."""
        return [self.choices]

    def encoded(self, reader: Any, max_length: int, rows: Choices) -> Parts:
        """See :meth:`RecordTask.encoded`: K texts a question, one after the other."""
        pairs = zip(rows.questions, rows.answers, strict=True)
        second = [f"{question} {answer}".strip() for question, answers in pairs for answer in answers]
        first = [context for context in rows.contexts for _ in range(self.choices)]
        labels = np.repeat(rows.right if rows.right is not None else np.zeros(len(rows), np.int64), self.choices)
        made = encoding.encode(reader, Rows(first, second, labels), max_length)
        return made.arrays(), made.numbers()

    def dataset(self, rows: Choices, values: dict[str, np.ndarray], numbers: dict[str, int]) -> ChoiceSet:
        """See :meth:`RecordTask.dataset`."""
        return ChoiceSet(rows, of_arrays(values, numbers["pad"], numbers["truncated"]), self.choices)

    def evaluate(self, predictions: Predictions, targets: Targets) -> dict[str, float]:
        """Return the accuracy of the answer with the highest score."""
        logits = np.asarray(predictions["logits"], dtype=np.float32)
        if not np.all(np.isfinite(logits)):
            raise ValueError("logits are not finite: the training diverged (lower recipe.learning_rate)")
        return metrics.compute(["accuracy"], "classification", logits.argmax(axis=1), np.asarray(targets[LABEL]))

    def sheet(self, predictions: Predictions, data: Dataset, split: str) -> tuple[str, str]:
        """See :meth:`Task.sheet`: a line a question with the letter of its answer."""
        letters = [LETTERS[i] for i in np.asarray(predictions["logits"]).argmax(axis=1).tolist()]
        return f"{self.name}.{split}.tsv", leaderboard.sheet(letters)


@dataclass
class Several(Batch):
    """A batch of questions, whose inputs and mask have K rows a question.

    Attributes:
        choices: K.
    """

    choices: int = 1

    def to(self, device: Any) -> Several:
        """See :meth:`Batch.to`."""
        plain = super().to(device)
        return replace(self, inputs=plain.inputs, mask=plain.mask, labels=plain.labels, index=plain.index)

    def part(self, rows: slice) -> Several:
        """See :meth:`Batch.part`: some questions, with all their answers."""
        begin, stop, _ = rows.indices(len(self))
        texts = slice(begin * self.choices, stop * self.choices)
        assert self.mask is not None
        return replace(
            self,
            inputs={name: x[texts] for name, x in self.inputs.items()},
            mask=self.mask[texts],
            labels={name: x[rows] for name, x in self.labels.items()},
            index=self.index[rows],
        )


@dataclass
class ChoiceSet(Dataset):
    """One split.

    Attributes:
        rows: the questions.
        encoded: K texts a question, one question after the other.
        choices: K.
    """

    rows: Choices
    encoded: Encoded
    choices: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def costs(self) -> np.ndarray:
        """(n,) tokens of the longest of a question's texts."""
        longest: np.ndarray = self.encoded.costs.reshape(-1, self.choices).max(axis=1)
        return longest

    @property
    def targets(self) -> Targets:
        """Which answer is right."""
        return {LABEL: self.rows.right if self.rows.right is not None else np.zeros(len(self), np.int64)}

    @property
    def facts(self) -> dict[str, Any]:
        """How many texts were cut."""
        return {"truncated": self.encoded.truncated}

    def vocabulary(self) -> np.ndarray:
        """See :meth:`Dataset.vocabulary`."""
        return self.encoded.vocabulary()

    def specimen(self, size: int, length: int) -> Batch:
        """See :meth:`Dataset.specimen`: ``size`` questions."""
        return self.encoded.specimen(size * self.choices, length)

    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Several:
        """See :meth:`Dataset.collate`: inputs and mask (B*K, L), labels (B,)."""
        import torch

        index = np.asarray(index, dtype=np.int64)
        texts = (index[:, None] * self.choices + np.arange(self.choices)).reshape(-1)
        batch = self.encoded.collate(texts, step_seed, width)
        labels = {name: x[:: self.choices].contiguous() for name, x in batch.labels.items()}
        return Several(batch.inputs, batch.mask, labels, torch.from_numpy(index), self.choices)
