"""Text classification and regression from local files or the hub: one YAML a data set, no code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdexp.common.problems import ConfigError
from kdexp.config.schema import Text
from kdexp.tasks.base import UNLABELLED, DataContext, Dataset, Predictions
from kdexp.tasks.text import encoding, files, leaderboard, tokenizer, values
from kdexp.tasks.text.encoding import Encoded
from kdexp.tasks.text.place import Located
from kdexp.tasks.text.rows import Rows, hold_out
from kdexp.tasks.text.sequence import SequenceTask

AGREEMENT = 0.1
"""Share of rows without labels that is set aside to score on where no file has labels."""


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

    def columns_asked(self, labelled: bool = True) -> dict[str, list[str]]:
        """See :meth:`Located.columns_asked`."""
        return {"columns": self.columns, **({"label": [self.label]} if labelled else {})}

    def classes_asked(self) -> tuple[list[str], str]:
        """See :meth:`Located.classes_asked`."""
        return self.label_names, self.label

    # --- rows -----------------------------------------------------------------------------------------------------

    def source_state(self, root: str | None, cache: Path | None) -> str:
        """Paths, sizes and times of the files, and the settings that decide what is read from them."""
        found: dict[str, Any] = dict(self.file_state(root, cache))
        if "train" not in found:
            found["train"] = self.unlabelled_state(root)
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
        if self.without_labels:
            try:
                out |= self._set_aside(self.unlabelled_rows(root), "validation" not in out)
            except ValueError as error:
                wrong.append(f"task={self.name}: {error}.")
        if wrong:
            raise ConfigError(wrong)
        return out

    # --- rows without labels --------------------------------------------------------------------------------------

    def unlabelled_rows(self, root: str | None) -> Rows:
        """See :meth:`Located.unlabelled_rows`."""
        parts = [self._texts(path) for path in self.unlabelled_files(root)]
        second = None if parts[0].second is None else [text for part in parts for text in part.second or []]
        labels = np.concatenate([part.labels for part in parts])
        return Rows([text for part in parts for text in part.first], second, labels, labelled=False)

    def _texts(self, path: Path) -> Rows:
        """Read the texts of a file, and no labels."""
        table = files.read(path, list(self.columns))
        texts = [values.texts(table, column) for column in self.columns]
        if not texts[0]:
            raise ValueError(f"{path} has no rows")
        each = (len(self.label_names),) if self.kind == "multilabel" else ()
        labels = np.zeros((len(texts[0]), *each), np.int64 if self.kind == "classification" else np.float32)
        return Rows(texts[0], texts[1] if len(texts) == 2 else None, labels, labelled=False)

    def _set_aside(self, rows: Rows, validation: bool) -> dict[str, Rows]:
        """Return training rows without labels, and rows to score on where no file has any."""
        if not validation:
            return {"train": rows}
        train, apart = hold_out(rows, AGREEMENT, 1, classes=False)
        return {"train": train, "validation": apart}

    def asked(self, rows: Rows) -> list[Any]:
        """See :meth:`Located.asked`: the texts."""
        return list(rows.first if rows.second is None else zip(rows.first, rows.second, strict=True))

    def labelled_rows(self, root: str | None, cache: Path | None) -> dict[str, Rows]:
        """See :meth:`Located.labelled_rows`."""
        return {name: rows for name, rows in self.rows(root, cache).items() if rows.labelled}

    def record(self, root: str | None, cache: Path) -> list[str]:
        """See :meth:`SequenceTask.record`."""
        return [*super().record(root, cache), *self.unlabelled_record(root, cache)]

    def unusable(self, context: DataContext) -> list[str]:
        """See :meth:`Task.unusable`."""
        wrong, root, cache = super().unusable(context), context.root, context.cache
        if not wrong and self.has_further and self.at_hand(root, cache):
            try:
                self._counted_further(root, cache, keep=False)
            except ValueError as error:
                wrong = [f"task={self.name}: task.unlabelled: {error}."]
        return wrong

    def datasets(self, context: DataContext) -> dict[str, Dataset]:
        """See :meth:`SequenceTask.datasets`."""
        splits = super().datasets(context)
        if self.has_further:
            splits |= self._further_encoded(context)
        counted = self._known(context.root, context.cache)["splits"]
        for name, split in splits.items():
            said = counted.get("train" if name == "heldout" else name, {})
            split.labelled = bool({"classes", "scores"} & said.keys())
        return splits

    def _further_encoded(self, context: DataContext) -> dict[str, Encoded]:
        """Return the rows without labels beside labelled ones, tokenised once."""
        key, cache = f"{UNLABELLED} {self.further(context.root, context.cache)}", Path(context.cache)

        def encode(reader: Any) -> dict[str, Encoded]:
            rows = {UNLABELLED: self.unlabelled_rows(context.root)}
            return encoding.encode_once(reader, context.max_length, key, lambda: rows, cache)

        return self._encoded(context, key, encode)

    def unseen(self, context: DataContext, split: str, file: Path | None = None) -> Dataset:
        """See :meth:`Task.unseen`."""
        rows = self._texts(file or self.other_file(split, context.root, context.cache))
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
