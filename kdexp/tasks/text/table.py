"""Text classification and regression from local files or the hub: one YAML a data set, no code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdexp.common.problems import ConfigError
from kdexp.config.schema import Text
from kdexp.tasks.base import DataContext, Dataset, Predictions
from kdexp.tasks.text import encoding, files, leaderboard, tokenizer, values
from kdexp.tasks.text.place import Located
from kdexp.tasks.text.rows import Rows
from kdexp.tasks.text.sequence import SequenceTask


@dataclass
class TextTask(Located, SequenceTask):
    """One or two text columns, one label column.

    Attributes:
        columns: one or two text columns.
        label: the label column: class ids, class names, or scores.
    """

    columns: list[str] = field(default_factory=list)
    label: Text = "label"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: naming what does not fit.
        """
        if not 1 <= len(self.columns) <= 2:
            raise ValueError(f"task.columns={list(self.columns)}: name one text column, or two")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"task.columns={list(self.columns)}: a column stands there twice; name another")
        if self.label in self.columns:
            raise ValueError(f"task.label={self.label} is one of task.columns: a model would read what it shall answer")
        self.check_places()
        super().__post_init__()

    def columns_asked(self) -> dict[str, list[str]]:
        """See :meth:`Located.columns_asked`."""
        return {"columns": self.columns, "label": [self.label]}

    def classes_asked(self) -> tuple[list[str], str]:
        """See :meth:`Located.classes_asked`."""
        return self.label_names, self.label

    # --- rows -----------------------------------------------------------------------------------------------------

    def source_state(self, root: str | None, cache: Path | None) -> str:
        """Paths, sizes and times of the files, and the settings that decide what is read from them."""
        found = self.file_state(root, cache)
        settings = [self.columns, self.label, self.kind, self.label_names]
        return hashlib.sha256(json.dumps([found, settings], sort_keys=True).encode()).hexdigest()

    def rows(self, root: str | None, cache: Path | None) -> dict[str, Rows]:
        """All rows of all splits that exist.

        Raises:
            ValueError: files, columns, texts or labels that do not fit; names the row (of each file, the first).
        """
        out, wrong = {}, []
        for split, path in self._files(root, cache).items():
            try:
                out[split] = self._read(path)
            except ValueError as error:
                wrong.append(f"task={self.name}: {error}.")
        if wrong:
            raise ConfigError(wrong)
        return out

    def unlabelled(self, context: DataContext, split: str, file: Path | None = None) -> Dataset:
        """See :meth:`Task.unlabelled`."""
        table = files.read(file or self.other_file(split, context.root, context.cache), list(self.columns))
        texts = [values.texts(table, column) for column in self.columns]
        if not texts[0]:
            raise ValueError(f"{table.path} has no rows")
        rows = Rows(texts[0], texts[1] if len(texts) == 2 else None, np.zeros(len(texts[0]), np.int64))
        return encoding.encode(tokenizer.of_teacher(context), rows, context.max_length)

    def sheet(self, predictions: Predictions, data: Dataset, split: str) -> tuple[str, str]:
        """See :meth:`Task.sheet`: GLUE's form for its data; for others a line a row with class or score."""
        form = leaderboard.FORMS.get(self.hub_config or "") if self.hub == leaderboard.GLUE else None
        name = form.files.get(split) if form is not None else None
        answers = leaderboard.written(predictions["logits"], self.label_names, form)
        return name or f"{self.name}.{split}.tsv", leaderboard.sheet(answers)

    def _read(self, path: Path) -> Rows:
        table = files.read(path, [*self.columns, self.label])
        if not table.columns[self.label]:
            raise ValueError(f"{path} has no rows")
        texts = [values.texts(table, column) for column in self.columns]
        if self.kind == "regression":
            labels = values.scores(table, self.label)
        else:
            labels = values.class_ids(table, self.label, self.label_names)
        return Rows(texts[0], texts[1] if len(texts) == 2 else None, labels)
