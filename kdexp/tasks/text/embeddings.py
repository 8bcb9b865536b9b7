"""Sentence embeddings: what vector does the teacher give a text? Texts without labels, and pairs to judge by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from kdexp.common.problems import ConfigError
from kdexp.common.registry import build, target
from kdexp.config.schema import Count, Text
from kdexp.heads.similarities import COSINE, LABEL, SCORE, SIMILARITY
from kdexp.tasks import metrics
from kdexp.tasks.base import DataContext, Dataset, Predictions, Targets, Task
from kdexp.tasks.text import embedder_folder, encoding, tokenizer
from kdexp.tasks.text.cutting import sentences
from kdexp.tasks.text.packed import Names
from kdexp.tasks.text.raw import RawText
from kdexp.tasks.text.rows import Rows, hold_out
from kdexp.tasks.text.table import TextTask
from kdexp.tasks.text.vectors import Texts, apart

if TYPE_CHECKING:
    from kdexp.heads.base import Head

OF_PAIRS = ("spearman", "pearson")
"""Metrics of pairs: correlations of cosines with what people say."""
OF_TEACHER = ("agreement", "cosine")
"""Metrics of any texts: Spearman's correlation with the teacher's cosines, and the mean cosine with its vectors."""
_UNUSABLE: dict[str, list[str]] = {}
"""What is wrong with texts and tokenizers that this process has tried: a grid's points try nothing twice."""
CUT = 1
"""Raise it when a text gives other sentences than before."""


@dataclass
class Embeddings(Task):
    """A vector for every text, learned from a teacher's.

    Where the texts are looked for, and in which formats: as :class:`~kdexp.tasks.text.raw.RawText`.

    Attributes:
        folder, files, column, hub, hub_config, hub_revision, hub_commit, hub_splits: where the texts are.
        cut: what is learned from: single ``sentences`` of the texts, or ``texts`` as they are.
        shortest, longest: characters of a text that is taken.
        per_document: at most so many sentences of one document; null = all.
        limit_train: use only the first so many of train, before the held-out part is cut; null = all.
        limit_validation: measure on so many texts of a split, evenly spaced; null = all.
        pairs: settings of a task of pairs of texts with scores, whose validation split is measured; null = none.
        pool: ``mean`` of a text's real tokens, or ``cls``, its first one.
        normalize: vectors have length 1.
        projection: for a student of another width than its teacher: ``linear``, a learned map to the teacher's width,
            or ``pca``, the teacher's vectors cut to the student's width.
    """

    locations: ClassVar[tuple[str, ...]] = (*RawText.locations, "pairs")

    folder: Text | None = None
    files: dict[str, Names] = field(default_factory=lambda: {"train": "train.*", "validation": "validation.*"})
    column: Text = "text"
    hub: Text | None = None
    hub_config: Text | None = None
    hub_revision: Text | None = None
    hub_commit: Text | None = None
    hub_splits: dict[str, str] | None = None
    cut: Literal["sentences", "texts"] = "sentences"
    shortest: Count = 20
    longest: Count = 200
    per_document: Count | None = 20
    limit_train: Count | None = None
    limit_validation: Count | None = None
    pairs: dict[str, Any] | None = None
    pool: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    projection: Literal["linear", "pca"] = "linear"

    def __post_init__(self) -> None:
        """Check the settings against one another.

        Raises:
            ValueError: naming every setting that does not fit.
        """
        wrong = []
        known = (*(OF_PAIRS if self.pairs else ()), *OF_TEACHER)
        for name in dict.fromkeys([*self.metrics, self.metric]):
            if name not in known:
                pairless = " (it is measured on task.pairs, which is null)" if name in OF_PAIRS else ""
                wrong.append(f"metric {name} does not exist here{pairless}; choose among: {', '.join(known)}")
        if self.shortest > self.longest:
            wrong.append(f"task.shortest={self.shortest} is above task.longest={self.longest}: no text is left")
        if self.limit_train is not None and self.limit_train < 2:
            wrong.append(f"task.limit_train={self.limit_train}: at least 2, or null for all")
        if self.cut == "texts" and self.per_document is not None:
            wrong.append(f"task.per_document={self.per_document} has no effect with task.cut=texts: set it to null")
        try:
            self._corpus()
        except ValueError as error:
            wrong.append(str(error))
        if self.pairs is not None:
            wrong += self._unpaired(self.pairs)
        if wrong:
            raise ValueError("; ".join(wrong))

    def _unpaired(self, pairs: dict[str, Any]) -> list[str]:
        """Say why ``pairs`` are none."""
        try:
            task = target(pairs, TextTask)
            gold = task(**{key: value for key, value in pairs.items() if key != "_target_"})
        except (ValueError, TypeError) as error:
            return [f"task.pairs: {error}"]
        if gold.kind == "regression" and len(gold.columns) == 2:
            return []
        return [
            f"task.pairs needs two text columns and scores; {gold.name} is a {gold.kind} of {len(gold.columns)} "
            "column(s): use stsb (task@task.pairs=stsb)"
        ]

    def _corpus(self) -> RawText:
        """Return the texts, as the task that finds them."""
        names = ("folder", "column", "hub", "hub_config", "hub_revision", "hub_commit", "hub_splits")
        return RawText(self.name, files=dict(self.files), **{name: getattr(self, name) for name in names})

    def _gold(self) -> TextTask | None:
        """Return the pairs, as the task that has them."""
        return None if self.pairs is None else build(self.pairs)

    def _sources(self) -> list[Task]:
        gold = self._gold()
        return [self._corpus(), *([] if gold is None else [gold])]

    # --- where the data are ---------------------------------------------------------------------------------------

    def problems(self, root: str | None) -> list[str]:
        """See :meth:`Task.problems`: of the texts and of the pairs."""
        gold = self._gold()
        of_pairs = [] if gold is None else gold.problems(root)
        keyed = [text.replace(" task.", " task.pairs.") for text in of_pairs]
        return [*self._corpus().problems(root), *keyed]

    def here(self, root: str | None, cache: Path) -> bool:
        """See :meth:`Task.here`."""
        return all(source.here(root, cache) for source in self._sources())

    def pin(self, root: str | None, cache: Path, ask: bool) -> dict[str, Any]:
        """See :meth:`Task.pin`: the commits of the hub's data sets, of texts and pairs."""
        pinned, gold = self._corpus().pin(root, cache, ask), self._gold()
        of_pairs = {} if gold is None else gold.pin(root, cache, ask)
        return {**pinned, "pairs": {**(self.pairs or {}), **of_pairs}} if of_pairs else pinned

    def note(self, root: str | None) -> str | None:
        """See :meth:`Task.note`: of the pairs."""
        gold = self._gold()
        return None if gold is None else gold.note(root)

    # --- texts ----------------------------------------------------------------------------------------------------

    def _texts(self, split: str, limit: int | None, root: str | None, cache: Path | None) -> list[str]:
        """Return the first texts of a split that are long and short enough, each once."""
        found = self._all(self._corpus().texts(split, root, cache))
        return _first(found, limit)

    def _all(self, documents: Iterator[str]) -> Iterator[str]:
        for document in documents:
            if self.cut == "sentences":
                yield from islice(sentences(document, self.shortest, self.longest), self.per_document)
            elif self.shortest <= len(document) <= self.longest:
                yield document

    def _rows(self, root: str | None, cache: Path | None) -> dict[str, Rows]:
        """Return ``train`` before the held-out part is cut, and ``validation``: pairs, or texts of their own file.

        Raises:
            ValueError: no text is left, or there is nothing to measure on.
        """
        gold = self._gold()
        train = _plain(self._texts("train", self.limit_train, root, cache))
        if len(train) < 2:
            raise ValueError(
                f"task={self.name}: {len(train)} text(s) of train have {self.shortest} to {self.longest} characters: "
                "correct task.folder, task.column, task.cut or task.longest"
            )
        if gold is not None:
            return {"train": train, "validation": gold.rows(root, cache)["validation"]}
        validation = _plain(self._texts("validation", None, root, cache))
        if len(validation) < 2:
            raise ValueError(
                f"task={self.name}: there is nothing to measure on: name a file with task.files.validation, or pairs "
                "(task@task.pairs=stsb)"
            )
        return {"train": train, "validation": validation}

    def _state(self, root: str | None, cache: Path | None) -> str:
        gold = self._gold()
        settings = [CUT, self.cut, self.shortest, self.longest, self.per_document, self.limit_train]
        return json.dumps(
            [self._corpus().state(root, cache), settings, None if gold is None else gold.source_state(root, cache)]
        )

    def _known(self, root: str | None, cache: Path | None) -> dict[str, Any]:
        return encoding.remember(cache, "embeddings", self._state(root, cache), lambda: self._read(root, cache))

    def _read(self, root: str | None, cache: Path | None) -> dict[str, Any]:
        rows = self._rows(root, cache)
        return {
            "sha256": [split.digest() for split in rows.values()],
            "rows": {name: len(split) for name, split in rows.items()},
        }

    def fingerprint(self, root: str | None, cache: Path | None = None) -> str:
        """See :meth:`Task.fingerprint`: of the texts that are used, and of the pairs."""
        return " ".join(self._known(root, cache)["sha256"])

    def record(self, root: str | None, cache: Path) -> list[str]:
        """Return how many texts and pairs there are."""
        of = {"train": "texts", "validation": "texts" if self.pairs is None else "pairs"}
        counts = self._known(root, cache)["rows"]
        return [f"task {self.name}: {name} has {count} {of[name]}" for name, count in counts.items()]

    def unusable(self, context: DataContext) -> list[str]:
        """See :meth:`Task.unusable`: no texts, no pairs, a tokenizer that does not fit."""
        if not self.here(context.root, context.cache):
            return []
        pair = f"{tokenizer.state(context)} {self._state(context.root, context.cache)}"
        if pair not in _UNUSABLE:
            try:
                self._rows_here(context)
                _UNUSABLE[pair] = []
            except ConfigError as error:
                _UNUSABLE[pair] = error.problems
            except ValueError as error:
                _UNUSABLE[pair] = [f"{str(error).rstrip('.')}."]
        return list(_UNUSABLE[pair])

    def _rows_here(self, context: DataContext) -> None:
        """Read what must be there, and load a local teacher's tokenizer.

        Raises:
            ValueError: it is not, or the tokenizer cannot be used.
        """
        known = encoding.recall(context.cache, "embeddings", self._state(context.root, context.cache))
        if known is None:
            self._rows(context.root, context.cache)
        if context.options.get("local_files_only") and (Path(context.model) / "config.json").is_file():
            tokenizer.of_teacher(replace(context, max_length=0))  # the length has a check of its own

    def datasets(self, context: DataContext) -> dict[str, Dataset]:
        """See :meth:`Task.datasets`: tokenised once."""
        reader = tokenizer.of_teacher(context)
        key = f"{self.fingerprint(context.root, context.cache)} {context.heldout} {self.limit_validation} apart"
        make = partial(self._cut, context)
        made = encoding.encode_once(reader, context.max_length, key, make, context.cache)
        if made["train"].truncated:
            say = f"{made['train'].truncated} of {len(made['train'])} training texts were cut"
            context.say(f"{say} at {context.max_length} tokens")
        return {
            name: Texts(split, pairs=self.pairs is not None and name == "validation") for name, split in made.items()
        }

    def _cut(self, context: DataContext) -> dict[str, Rows]:
        rows = self._rows(context.root, context.cache)
        train, held = hold_out(rows["train"], context.heldout, 0, classes=False)
        kept = {"heldout": held} if len(held) else {}
        return {"train": train} | {
            name: apart(split.take(_evenly(len(split), self.limit_validation)))
            for name, split in {**kept, "validation": rows["validation"]}.items()
        }

    # --- answers --------------------------------------------------------------------------------------------------

    @property
    def head(self) -> Head:
        """A vector."""
        settings = {name: getattr(self, name) for name in ("pool", "normalize", "projection")}
        return build({"_target_": "kdexp.heads.embedding.Embedding", **settings})

    def evaluate(self, predictions: Predictions, targets: Targets) -> dict[str, float]:
        """Return the metrics that a split allows: of pairs all, of texts how far they agree with the teacher's.

        Raises:
            ValueError: vectors are not finite.
        """
        similarity = np.asarray(predictions[SCORE if LABEL in targets else SIMILARITY]).ravel()
        found: dict[str, float] = {}
        if not np.all(np.isfinite(similarity)):
            raise ValueError("vectors are not finite: the training diverged (lower recipe.learning_rate)")
        if LABEL in targets:
            found |= {name: metrics.SCORES[name](similarity, np.asarray(targets[LABEL])) for name in OF_PAIRS}
        if SIMILARITY in targets:
            found["agreement"] = metrics.spearman(similarity, np.asarray(targets[SIMILARITY]).ravel())
            found["cosine"] = float(np.mean(predictions[COSINE], dtype=np.float64))
        return {name: found[name] for name in self.metrics if name in found}

    def contributions(self, predictions: Predictions, targets: Targets) -> dict[str, np.ndarray]:
        """See :meth:`Goal.contributions`: of single texts, the cosine with the teacher's vector; pairs have scores."""
        return {COSINE: np.asarray(predictions[COSINE])} if SIMILARITY in predictions else {}

    def save_preprocessor(self, context: DataContext, folder: Path) -> None:
        """See :meth:`Task.save_preprocessor`: the tokenizer, and what sentence-transformers reads."""
        tokenizer.save(tokenizer.of_teacher(context), folder, context.max_length)
        embedder_folder.write(folder, context.max_length)


def _first(texts: Iterator[str], count: int | None) -> list[str]:
    """Return the first so many different texts, None = all; the rest is not looked at."""
    found: dict[str, None] = {}
    for text in texts:
        found[text] = None
        if len(found) == count:
            break
    return list(found)


def _plain(texts: list[str]) -> Rows:
    return Rows(texts, None, np.zeros(len(texts), np.float32))


def _evenly(count: int, limit: int | None) -> np.ndarray:
    """Return at most ``limit`` of ``count`` row numbers, evenly spaced; all without a limit."""
    return np.unique(np.linspace(0, count - 1, min(count, limit or count)).astype(np.int64))
