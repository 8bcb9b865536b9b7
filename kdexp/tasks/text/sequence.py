"""What all text tasks share: cutting, tokenising once, judging. A subclass only says where its rows come from."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdexp.tasks import metrics
from kdexp.tasks.base import Encoded, Task
from kdexp.tasks.text import encoding
from kdexp.tasks.text.rows import Rows, hold_out, stratified

KINDS = ("classification", "regression")


@dataclass
class SequenceTask(Task):
    """A task whose input is one text or a pair of texts, with one label.

    Attributes:
        limit_train: use only so many training rows (stratified, always the same ones), before the held-out part is
            cut; null = all. A limited task has another content hash.
    """

    limit_train: int | None = None

    def __post_init__(self) -> None:
        """Check the settings against one another.

        Raises:
            ValueError: naming every setting that does not fit.
        """
        wrong = []
        if self.kind not in KINDS:
            raise ValueError(f"task.kind={self.kind} is unknown; choose one of: {', '.join(KINDS)}")
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
        if "f1" in self.metrics and self.num_labels != 2:
            wrong.append(f"metric f1 needs two classes, task.label_names has {self.num_labels}: use f1_macro")
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
        """See :meth:`Task.splits`; without a held-out part there is no ``heldout`` key."""
        rows = self._limited(root, cache)
        train, held = hold_out(rows["train"], heldout, seed, self.kind == "classification")
        out = {"train": train}
        if len(held):
            out["heldout"] = held
        return out | {name: r for name, r in rows.items() if name != "train"}

    def encode(
        self, tokenizer: Any, max_length: int, root: str | None, heldout: float, cache: Path
    ) -> dict[str, Encoded]:
        """See :meth:`Task.encode`."""
        return encoding.encode_once(
            tokenizer,
            max_length,
            key=f"{self.fingerprint(root, cache)} {heldout}",
            make=lambda: self.splits(root, heldout, cache=cache),
            cache=Path(cache),
        )

    def evaluate(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """All metrics of the most probable class, or of the scores.

        Raises:
            ValueError: shapes do not fit the task, or predictions are not finite.
        """
        logits, labels = np.asarray(logits, dtype=np.float32), np.asarray(labels)
        if self.kind == "regression":
            return metrics.compute(self.metrics, self.kind, logits.reshape(-1), labels)
        if logits.ndim != 2 or logits.shape[1] != self.num_labels:
            raise ValueError(f"logits of shape {logits.shape} for task {self.name} with {self.num_labels} classes")
        if not np.all(np.isfinite(logits)):
            raise ValueError("logits are not finite: the training diverged (lower recipe.learning_rate)")
        return metrics.compute(self.metrics, self.kind, logits.argmax(axis=1), labels)

    def majority(self, train_labels: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """See :meth:`Task.majority`; of equally frequent classes the lowest id."""
        if self.kind == "regression":
            constant = np.full(len(labels), np.mean(train_labels), dtype=np.float32)
            return metrics.compute(self.metrics, self.kind, constant, np.asarray(labels))
        most = int(np.bincount(np.asarray(train_labels, dtype=np.int64), minlength=self.num_labels).argmax())
        return metrics.compute(self.metrics, self.kind, np.full(len(labels), most), np.asarray(labels))
