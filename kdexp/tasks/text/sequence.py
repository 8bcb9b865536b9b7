"""What all text tasks share: cutting, tokenising once, judging. A subclass only says where its rows come from."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdexp.common.registry import build
from kdexp.config.schema import Count
from kdexp.tasks import metrics
from kdexp.tasks.base import DataContext, Dataset, Predictions, Targets, Task
from kdexp.tasks.text import encoding, tokenizer
from kdexp.tasks.text.encoding import LABEL, Encoded
from kdexp.tasks.text.rows import Rows, hold_out, stratified

if TYPE_CHECKING:
    from kdexp.heads.base import Head

HEADS = {
    "classification": "kdexp.heads.classification.Classification",
    "regression": "kdexp.heads.regression.Regression",
}
"""The head of each kind, by name: a task that is only looked at loads no torch."""


@dataclass
class SequenceTask(Task):
    """A task whose input is one text or a pair of texts, with one label.

    Attributes:
        kind: ``classification`` or ``regression``.
        label_names: class names in the order of their ids (empty for regression).
        limit_train: use only so many training rows (stratified, always the same ones), before the held-out part is
            cut; null = all. A limited task has another content hash.
    """

    kind: str = "classification"
    label_names: list[str] = field(default_factory=list)
    limit_train: Count | None = None

    def __post_init__(self) -> None:
        """Check the settings against one another.

        Raises:
            ValueError: naming every setting that does not fit.
        """
        wrong = []
        if self.kind not in HEADS:
            raise ValueError(f"task.kind={self.kind} is unknown; choose one of: {', '.join(HEADS)}")
        if self.kind == "classification" and len(self.label_names) < 2:
            wrong.append(f"task.label_names={list(self.label_names)}: name at least two classes, ordered by their ids")
        if self.kind == "regression" and self.label_names:
            wrong.append(f"task.label_names={list(self.label_names)}: a regression has none; set it to []")
        if len(set(self.label_names)) < len(self.label_names):
            wrong.append(f"task.label_names={list(self.label_names)}: a name stands there twice")
        for name in dict.fromkeys([*self.metrics, self.metric]):
            if name not in metrics.known(self.kind):
                fitting = ", ".join(metrics.known(self.kind))
                wrong.append(f"metric {name} does not exist for task.kind={self.kind}; choose among: {fitting}")
        if "f1" in self.metrics and len(self.label_names) != 2:
            wrong.append(f"metric f1 needs two classes, task.label_names has {len(self.label_names)}: use f1_macro")
        if self.metric not in self.metrics:
            wrong.append(f"task.metric={self.metric} is not among task.metrics={list(self.metrics)}")
        if self.limit_train is not None and self.limit_train < 2:
            wrong.append(f"task.limit_train={self.limit_train}: at least 2, or null for all rows")
        if wrong:
            raise ValueError("; ".join(wrong))

    # --- what a subclass gives ------------------------------------------------------------------------------------

    @abstractmethod
    def rows(self, root: str | None, cache: Path | None) -> dict[str, Rows]:
        """``train``, ``validation`` and further ``validation_*``, complete (no limit, nothing held out)."""

    @abstractmethod
    def source_state(self, root: str | None, cache: Path | None) -> str:
        """A string that changes when the rows might: file sizes and times, versions. Costs milliseconds."""

    # --- the interface --------------------------------------------------------------------------------------------

    def _limited(self, root: str | None, cache: Path | None) -> dict[str, Rows]:
        rows = self.rows(root, cache)
        if self.limit_train is not None and self.limit_train < len(rows["train"]):
            train = rows["train"]
            chosen = stratified(train.labels, self.limit_train, 0, self.kind == "classification")
            rows = {**rows, "train": train.take(chosen)}
        return rows

    def fingerprint(self, root: str | None, cache: Path | None = None) -> str:
        """See :meth:`Task.fingerprint`; covers what is used after ``limit_train``, whatever file it came from."""

        def compute() -> dict[str, str]:
            sha = hashlib.sha256()
            for name, rows in sorted(self._limited(root, cache).items()):
                sha.update(f"{name} {rows.digest()}\n".encode())
            return {"sha256": sha.hexdigest()}

        state = f"{self.source_state(root, cache)} {self.limit_train}"
        return encoding.remember(cache, "fingerprints", state, compute)["sha256"]

    def splits(self, root: str | None, heldout: float, seed: int = 0, cache: Path | None = None) -> dict[str, Rows]:
        """Return the rows by split: ``train``, ``heldout`` (if anything is held out), ``validation``, ``validation_*``.

        Args:
            root: local data root, or None (then the hub, or nothing for embedded tasks).
            heldout: share of train that is set aside for selection (stratified for classes), 0 for none.
            seed: of the cut; the same for all runs, so that students of one study see the same train part.
            cache: folder for what is costly to gather (downloads, the embedded corpus), or None.
        """
        rows = self._limited(root, cache)
        train, held = hold_out(rows["train"], heldout, seed, self.kind == "classification")
        out = {"train": train}
        if len(held):
            out["heldout"] = held
        return out | {name: r for name, r in rows.items() if name != "train"}

    def encode(self, reader: Any, max_length: int, root: str | None, heldout: float, cache: Path) -> dict[str, Encoded]:
        """Tokenise every split once; kept below ``cache`` by content of data, tokenizer, length and cut.

        Args:
            reader: tokenizer of transformers.
        """
        return encoding.encode_once(
            reader,
            max_length,
            key=f"{self.fingerprint(root, cache)} {heldout}",
            make=lambda: self.splits(root, heldout, cache=cache),
            cache=Path(cache),
        )

    def datasets(self, context: DataContext) -> dict[str, Dataset]:
        """See :meth:`Task.datasets`: the texts as the teacher's tokenizer cuts them."""
        reader = tokenizer.of_teacher(context)
        splits = self.encode(reader, context.max_length, context.root, context.heldout, context.cache)
        train = splits["train"]
        if train.truncated:
            context.say(f"{train.truncated} of {len(train)} training texts were cut at {context.max_length} tokens")
        return dict(splits)

    @property
    def head(self) -> Head:
        """Classes, or a score."""
        names = {"label_names": list(self.label_names)} if self.label_names else {}
        return build({"_target_": HEADS[self.kind], **names})

    def evaluate(self, predictions: Predictions, targets: Targets) -> dict[str, float]:
        """Return all metrics of the most probable class, or of the scores.

        Raises:
            ValueError: shapes do not fit the task, or predictions are not finite.
        """
        logits, labels = np.asarray(predictions["logits"], dtype=np.float32), np.asarray(targets[LABEL])
        if not self.label_names:
            return metrics.compute(self.metrics, self.kind, logits.reshape(-1), labels)
        if logits.ndim != 2 or logits.shape[1] != len(self.label_names):
            raise ValueError(
                f"logits of shape {logits.shape} for task {self.name} with {len(self.label_names)} classes"
            )
        if not np.all(np.isfinite(logits)):
            raise ValueError("logits are not finite: the training diverged (lower recipe.learning_rate)")
        return metrics.compute(self.metrics, self.kind, logits.argmax(axis=1), labels)
