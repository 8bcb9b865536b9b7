"""Texts with any number of labels each: topics, emotions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdexp.common.problems import near
from kdexp.config.schema import Text
from kdexp.tasks import metrics
from kdexp.tasks import shares as counting
from kdexp.tasks.base import Dataset, Predictions, Targets
from kdexp.tasks.text import files, leaderboard, values
from kdexp.tasks.text.encoding import LABEL
from kdexp.tasks.text.files import Table
from kdexp.tasks.text.rows import Rows
from kdexp.tasks.text.table import TextTask


@dataclass
class MultiLabelTask(TextTask):
    """One or two text columns, and a column with the labels of each row: a list, or a text of several.

    Attributes:
        separator: stands between labels where they are one text (``joy;fear``).
    """

    kind: str = "multilabel"
    separator: Text = ";"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: naming what does not fit.
        """
        if self.kind != "multilabel":
            raise ValueError(f"task.kind={self.kind}: this task has several labels a text, kind multilabel")
        if not self.label_names:
            raise ValueError("task.label_names=[]: name the labels, ordered by their ids")
        mixed = [name for name in self.label_names if self.separator in str(name)]
        if mixed:
            raise ValueError(f"task.label_names: {mixed[0]!r} holds task.separator={self.separator!r}: use another one")
        super().__post_init__()

    def source_state(self, root: str | None, cache: Path | None) -> str:
        """See :meth:`TextTask.source_state`."""
        return f"{super().source_state(root, cache)} {self.separator}"

    def _read(self, path: Path) -> Rows:
        table = files.read(path, [*self.columns, self.label])
        if not table.columns[self.label]:
            raise ValueError(f"{path} has no rows")
        texts = [values.texts(table, column) for column in self.columns]
        labels = np.zeros((len(texts[0]), len(self.label_names)), np.float32)
        for row, given in enumerate(table.columns[self.label]):
            labels[row, self._ids(table, row, given)] = 1
        return Rows(texts[0], texts[1] if len(texts) == 2 else None, labels)

    def _ids(self, table: Table, row: int, given: Any) -> list[int]:
        """Return the ids of a row's labels.

        Raises:
            ValueError: one is none of the names, or stands there twice.
        """
        if isinstance(given, str):
            given = [part.strip() for part in given.split(self.separator) if part.strip()]
        if not isinstance(given, list):
            raise ValueError(f"{table.at(row)}: {given!r} is no list of labels, nor a text with {self.separator!r}")
        out = []
        for label in given:
            if isinstance(label, str) and label in self.label_names:
                out.append(self.label_names.index(label))
            elif isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(self.label_names):
                out.append(label)
            else:
                raise ValueError(
                    f"{table.at(row)}: label {label!r} is none of {self.label_names}.{near(label, self.label_names)} "
                    f"Several labels in one text have {self.separator!r} between them (task.separator)"
                )
        if len(set(out)) < len(out):
            raise ValueError(f"{table.at(row)}: a label stands there twice in {given!r}")
        return out

    def _counts(self, split: Rows) -> dict[str, Any]:
        if not split.labelled:
            return {"rows": len(split)}
        counts = split.labels.sum(axis=0).astype(int).tolist()
        return {"rows": len(split), "classes": dict(zip(self.label_names, counts, strict=True))}

    def _unlearnable(self, train: dict[str, Any], share: float) -> list[str]:
        if "classes" not in train:
            return super()._unlearnable(train, share)
        where = f"task={self.name}: the {train['rows']} training row(s)"
        if not any(train["classes"].values()):
            return [f"{where} have no label at all: nothing can be learned; look at task.label={self.label}."]
        some = {name: count for name, count in train["classes"].items() if 0 < count < train["rows"]}
        if not some:
            return [f"{where} all have the same labels: nothing can be learned."]
        return super()._unlearnable({"rows": train["rows"]}, share)

    def evaluate(self, predictions: Predictions, targets: Targets) -> dict[str, float]:
        """Return all metrics of the labels whose logit is above 0.

        Raises:
            ValueError: predictions are not finite.
        """
        logits = np.asarray(predictions["logits"], dtype=np.float32)
        if not np.all(np.isfinite(logits)):
            raise ValueError("logits are not finite: the training diverged (lower recipe.learning_rate)")
        return metrics.compute(self.metrics, self.kind, logits > 0, np.asarray(targets[LABEL]) > 0, logits)

    def contributions(self, predictions: Predictions, targets: Targets) -> dict[str, np.ndarray]:
        """Return what each example contributes: its own score, or the jackknife's share where a metric is no mean."""
        given, right = np.asarray(predictions["logits"], np.float32) > 0, np.asarray(targets[LABEL]) > 0
        counts = np.stack([given & right, given, right], axis=-1).astype(np.int64)
        totals = counts.sum(axis=0)
        shares = {"subset_accuracy": (given == right).all(axis=1).astype(np.float64)}
        micro = counting.precision_recall_f1(totals.sum(axis=0))[2]
        rest = counting.precision_recall_f1((totals - counts).sum(axis=1))[2]
        shares["f1_micro"] = counting.jackknife(float(micro), rest)
        macro = counting.precision_recall_f1(totals)[2].mean()
        rest = counting.precision_recall_f1(totals - counts)[2].mean(axis=1)
        shares["f1_macro"] = counting.jackknife(float(macro), rest)
        return {name: shares[name] for name in self.metrics if name in shares}

    def sheet(self, predictions: Predictions, data: Dataset, split: str) -> tuple[str, str]:
        """See :meth:`Task.sheet`: a line a row with its labels."""
        rows = (np.flatnonzero(row > 0) for row in np.asarray(predictions["logits"]))
        answers = [self.separator.join(self.label_names[i] for i in row) for row in rows]
        return f"{self.name}.{split}.tsv", leaderboard.sheet(answers)
