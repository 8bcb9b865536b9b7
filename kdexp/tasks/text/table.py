"""Text classification and regression from local files or the hub: one YAML a data set, no code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from kdexp.common.problems import ConfigError
from kdexp.config.schema import Text
from kdexp.tasks.text import files, values
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
        self.check_places()
        super().__post_init__()

    def columns_asked(self) -> dict[str, list[str]]:
        """See :meth:`Located.columns_asked`."""
        return {"columns": self.columns, "label": [self.label]}

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
