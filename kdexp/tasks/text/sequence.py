"""What all text tasks share: cutting, tokenising once, judging. A subclass only says where its rows come from."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kdexp.common.problems import ConfigError
from kdexp.common.registry import build
from kdexp.config.schema import Count
from kdexp.tasks import metrics
from kdexp.tasks.base import DataContext, Dataset, Predictions, Targets, Task
from kdexp.tasks.text import encoding, tokenizer, values
from kdexp.tasks.text.encoding import LABEL, Encoded
from kdexp.tasks.text.rows import Rows, held, hold_out, limit_of, limited, stratified

if TYPE_CHECKING:
    from kdexp.heads.base import Head

HEADS = {
    "classification": "kdexp.heads.classification.Classification",
    "regression": "kdexp.heads.regression.Regression",
    "multilabel": "kdexp.heads.multilabel.MultiLabel",
}
"""The head of each kind, by name: a task that is only looked at loads no torch."""

SPECIMENS = 1000
"""Training rows that a tokenizer is tried on."""


@dataclass(frozen=True)
class Reading:
    """What a task's rows turned out to be.

    Attributes:
        kept: what the cache remembers: ``sha256`` of the content, and by split ``rows`` and ``classes`` (name -> rows)
            or ``scores`` (lowest, highest).
        specimens: some training rows, evenly spaced.
    """

    kept: dict[str, Any]
    specimens: Rows


_READINGS: dict[str, Reading | list[str]] = {}
"""What this process has read, or why it could not: a grid's points read nothing twice."""
_UNUSABLE: dict[str, str] = {}
"""What is wrong with tokenizers that this process has tried, by :meth:`SequenceTask._pair`; '' = nothing."""


@dataclass
class SequenceTask(Task):
    """A task whose input is one text or a pair of texts, with one label.

    Attributes:
        kind: ``classification`` or ``regression``.
        label_names: class names in the order of their ids (empty for regression). Numbers become names: 1 is "1".
        limit_train: use only so many training rows (stratified, always the same ones), before the held-out part is
            cut; null = all. A limited task has another content hash.
        limit_validation: score on so many rows of each validation split (chosen likewise); null = all. Its name is
            then marked as that of a part.
    """

    by_example: ClassVar[bool] = True

    kind: str = "classification"
    label_names: list[str] = field(default_factory=list)
    limit_train: Count | None = None
    limit_validation: Count | None = None

    def __post_init__(self) -> None:
        """Check the settings against one another.

        Raises:
            ValueError: naming every setting that does not fit.
        """
        wrong = [
            f"task.label_names={list(self.label_names)}: a name is a text, and {name!r} is none: put it in quotes"
            for name in self.label_names
            if isinstance(name, bool) or not isinstance(name, str | int | float)
        ]
        self.label_names = [str(name) for name in self.label_names]
        if self.kind not in HEADS:
            raise ValueError(f"task.kind={self.kind} is unknown; choose one of: {', '.join(HEADS)}")
        if self.kind == "classification" and len(self.label_names) < 2:
            wrong.append(f"task.label_names={list(self.label_names)}: name at least two classes, ordered by their ids")
        if self.kind == "regression" and self.label_names:
            wrong.append(f"task.label_names={list(self.label_names)}: a regression has none; set it to []")
        if len(set(self.label_names)) < len(self.label_names):
            wrong.append(f"task.label_names={list(self.label_names)}: a name stands there twice")
        for name in dict.fromkeys([*self.metrics, self.metric]):
            if why := metrics.problem(name, self.kind, max(1, len(self.label_names))):
                wrong.append(f"metric {name} {why}")
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
        return {name: self._some(split, limit_of(self, name)) for name, split in rows.items()}

    def _some(self, rows: Rows, limit: int | None) -> Rows:
        """Return so many of a split's rows, always the same ones; None = all."""
        if limit is None or limit >= len(rows):
            return rows
        return rows.take(stratified(rows.labels, limit, 0, self.kind == "classification"))

    def marks(self, root: str | None) -> list[tuple[str, str]]:
        """See :meth:`Task.marks`: not all validation rows are scored."""
        return [*super().marks(root), *limited(self)]

    def at_hand(self, root: str | None, cache: Path | None) -> bool:
        """Whether :meth:`rows` needs no network and is quick."""
        return False

    def _state(self, root: str | None, cache: Path | None) -> str:
        limits = [self.limit_train, *([] if self.limit_validation is None else [self.limit_validation])]
        return f"{values.READING} {self.source_state(root, cache)} {' '.join(map(str, limits))}"

    def _reading(self, root: str | None, cache: Path | None) -> Reading:
        """Read all rows, once a process.

        Raises:
            ValueError: rows that cannot be used.
        """
        state = f"{self._state(root, cache)} {self.label_names}"
        if state not in _READINGS:
            try:
                _READINGS[state] = self._read_all(root, cache)
            except ConfigError as error:
                _READINGS[state] = error.problems
            except ValueError as error:
                _READINGS[state] = [str(error)]
        reading = _READINGS[state]
        if not isinstance(reading, Reading):
            raise ConfigError(reading)
        return reading

    def _read_all(self, root: str | None, cache: Path | None) -> Reading:
        rows = self._limited(root, cache)
        sha = hashlib.sha256()
        for name, split in sorted(rows.items()):
            sha.update(f"{name} {split.digest()}\n".encode())
        train = rows["train"]
        some = np.unique(np.linspace(0, len(train) - 1, min(SPECIMENS, len(train))).astype(np.int64))
        splits = {name: self._counts(split) for name, split in rows.items()}
        return Reading({"sha256": sha.hexdigest(), "splits": splits}, train.take(some))

    def _counts(self, split: Rows) -> dict[str, Any]:
        if not split.labelled:
            return {"rows": len(split)}
        if self.kind == "regression":
            return {"rows": len(split), "scores": [float(split.labels.min()), float(split.labels.max())]}
        counts = np.bincount(split.labels, minlength=len(self.label_names)).tolist()
        return {"rows": len(split), "classes": dict(zip(self.label_names, counts, strict=True))}

    def _known(self, root: str | None, cache: Path | None) -> dict[str, Any]:
        """What :class:`Reading` keeps, from the cache or read and put there."""
        return encoding.remember(
            cache, "fingerprints", self._state(root, cache), lambda: self._reading(root, cache).kept
        )

    def fingerprint(self, root: str | None, cache: Path | None = None) -> str:
        """See :meth:`Task.fingerprint`; covers what is used after ``limit_train``, whatever file it came from."""
        return self._known(root, cache)["sha256"]

    def record(self, root: str | None, cache: Path) -> list[str]:
        """Rows of each split, classes and how often each, or the range of the scores."""
        splits = self._known(root, cache)["splits"]
        lines = [f"task {self.name}: {name} has {_counted(split)}" for name, split in splits.items()]
        classes = splits["train"].get("classes", {})
        lost = ", ".join(repr(name) for name, count in classes.items() if not count)
        return (
            [*lines, f"task {self.name}: no training row has the class {lost}: no model can learn it"]
            if lost
            else lines
        )

    def unusable(self, context: DataContext) -> list[str]:
        """See :meth:`Task.unusable`."""
        root, cache, wrong = context.root, context.cache, list[str]()
        try:
            if self.at_hand(root, cache):
                state = self._state(root, cache)
                kept = encoding.recall(cache, "fingerprints", state) or self._reading(root, cache).kept
                wrong += self._unlearnable(kept["splits"]["train"], context.heldout)
        except ConfigError as error:
            wrong += error.problems
        if context.options.get("local_files_only") and (Path(context.model) / "config.json").is_file():
            wrong += self._unreadable(context, texts=not wrong)
        return wrong

    def _unlearnable(self, train: dict[str, Any], share: float) -> list[str]:
        """Say why nothing can be learned from the training rows."""
        where = f"task={self.name}: the {train['rows']} training row(s)"
        present = [name for name, count in train.get("classes", {}).items() if count]
        if len(present) == 1:
            return [
                f"{where} all have the label {present[0]!r}: nothing can be learned from one class; look at the label "
                "column and the training file."
            ]
        if "scores" in train and train["scores"][0] == train["scores"][1]:
            return [f"{where} all have the score {train['scores'][0]:g}: nothing can be learned from one score."]
        try:
            held(train["rows"], share)
        except ValueError as error:
            return [f"task={self.name}: {error}."]
        return []

    def _pair(self, context: DataContext, texts: bool) -> str:
        """Name of a tokenizer and the texts that it shall read."""
        data = self._state(context.root, context.cache) if texts else ""
        return f"{tokenizer.state(context)} {data}"

    def _unreadable(self, context: DataContext, texts: bool) -> list[str]:
        """Say why a local teacher's tokenizer cannot be used.

        Args:
            texts: try it on the training texts too, if they are at hand.
        """
        texts = texts and self.at_hand(context.root, context.cache)
        pair = self._pair(context, texts)
        if texts and encoding.recall(context.cache, "tokenizers", pair) is not None:
            return []
        if pair not in _UNUSABLE:
            try:
                reader = tokenizer.of_teacher(replace(context, max_length=0))  # the length has a check of its own
                if texts:
                    self._try(reader, context)
                _UNUSABLE[pair] = ""
            except ValueError as error:
                _UNUSABLE[pair] = f"{context.place}.source: {error}"
        return [_UNUSABLE[pair]] if _UNUSABLE[pair] else []

    def _try(self, reader: Any, context: DataContext) -> dict[str, float]:
        """Return the share of tokens of the training texts that a tokenizer does not know.

        Raises:
            ValueError: it is too large; names some of the words.
        """
        some = self._reading(context.root, context.cache).specimens
        return {"unknown": tokenizer.refuse_unknown(reader, some, context.model, self.name)}

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
            key=self._cut(root, heldout, cache),
            make=lambda: self.splits(root, heldout, cache=cache),
            cache=Path(cache),
        )

    def _cut(self, root: str | None, heldout: float, cache: Path) -> str:
        """What decides the rows of every split."""
        return f"{self.fingerprint(root, cache)} {heldout}"

    def datasets(self, context: DataContext) -> dict[str, Dataset]:
        """See :meth:`Task.datasets`: the texts as the teacher's tokenizer cuts them.

        Loading a tokenizer takes longer than all else here, so it is loaded where texts have to be cut only: of one
        that was used before, with the same files, libraries and lengths, the digest is remembered.
        """
        wrong = self._unlearnable(self._known(context.root, context.cache)["splits"]["train"], context.heldout)
        if wrong:
            raise ConfigError(wrong)
        root, heldout, cache = context.root, context.heldout, context.cache
        splits = self._encoded(
            context,
            self._cut(root, heldout, cache),
            lambda reader: self.encode(reader, context.max_length, root, heldout, cache),
        )
        train = splits["train"]
        if train.truncated:
            context.say(f"{train.truncated} of {len(train)} training texts were cut at {context.max_length} tokens")
        return dict(splits)

    def _encoded(
        self, context: DataContext, key: str, encode: Callable[[Any], dict[str, Encoded]]
    ) -> dict[str, Encoded]:
        """Return rows as the teacher's tokenizer cuts them.

        Args:
            key: what decides the rows; what was kept under it is read.
            encode: is given the tokenizer, and keeps them.
        """
        pair = self._pair(context, texts=True)
        used = f"{pair} {context.max_length} {context.positions} {tokenizer.versions()}"
        tried = encoding.recall(context.cache, "tokenizers", pair) is not None
        known = encoding.recall(context.cache, "tokenizers", used) if tried else None
        splits = None
        if known is not None:
            splits = encoding.encoded(known["digest"], context.max_length, key, context.cache)
        if splits is None:
            reader = tokenizer.of_teacher(context)
            encoding.remember(context.cache, "tokenizers", pair, lambda: self._try(reader, context))
            splits = encode(reader)
            encoding.remember(context.cache, "tokenizers", used, lambda: {"digest": tokenizer.digest(reader)})
        return splits

    def save_preprocessor(self, context: DataContext, folder: Path) -> None:
        """See :meth:`Task.save_preprocessor`: the teacher's tokenizer, which cuts where the model's texts were cut."""
        tokenizer.save(tokenizer.of_teacher(context), folder, context.max_length)

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
        return metrics.compute(self.metrics, self.kind, logits.argmax(axis=1), labels, logits)


def _counted(split: dict[str, Any]) -> str:
    if not {"scores", "classes"} & split.keys():
        return f"{split['rows']} rows without labels"
    if "scores" in split:
        return f"{split['rows']} rows, scores from {split['scores'][0]:g} to {split['scores'][1]:g}"
    return f"{split['rows']} rows: " + ", ".join(f"{name!r} {count}" for name, count in split["classes"].items())
