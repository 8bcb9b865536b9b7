"""Raw text for language models: any column of texts, of files or the hub, packed; subclasses say what is asked."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from kdexp.common import network
from kdexp.config.schema import Count, Share, Text
from kdexp.heads.hidden_tokens import scores
from kdexp.tasks.base import DataContext, Dataset, Predictions, Targets, Task
from kdexp.tasks.text import corpus, encoding, files, hub, packing, tokenizer
from kdexp.tasks.text.packing import Asking, Cut

FEWEST = 32
"""Sequences that a split cut from train shall have before a limited corpus is not read further."""
SPECIMENS = 20
"""Documents that are looked at before anything is loaded."""

Names = str | list[str]


@dataclass
class PackedText(Task):
    """Texts of any kind, packed into sequences of ``recipe.max_length`` tokens, of which some shall be told.

    Where the files are looked for, in this order: ``folder``, the hub. ``folder`` lies below the data root
    (``data.root`` or KDEXP_DATA) unless it is absolute or begins with ``.`` or ``~``.

    Attributes:
        folder: of the files.
        files: split -> a name, a pattern (``*.txt``) or a list of those. ``validation`` may be missing: it is then cut
            from train.
        column: of the texts; plain text (.txt) has none, documents are apart by an empty line there.
        hub, hub_config, hub_revision, hub_commit, hub_splits: as of other texts.
        validation_share: of train's documents, where there is no validation file.
        documents: ``joined`` (they run on, a separator between two) or ``apart`` (no sequence has parts of two).
        limit_train: use only the first so many sequences of train; null = all.
        limit_validation: score on so many sequences of a split, evenly spaced; null = all.

    Class attributes:
        asked: what shall be told, in words for people.
        loss: the metric's name that is the mean cross entropy, in nats.
        pads: a tokenizer without a padding token cannot be used.
    """

    asked: ClassVar[str]
    loss: ClassVar[str]
    pads: ClassVar[bool] = True

    fixed: ClassVar[bool] = False
    locations: ClassVar[tuple[str, ...]] = (
        "folder", "files", "hub", "hub_config", "hub_revision", "hub_commit", "hub_splits",
    )  # fmt: skip

    folder: Text | None = None
    files: dict[str, Names] = field(default_factory=lambda: {"train": "train.*", "validation": "validation.*"})
    column: Text = "text"
    hub: Text | None = None
    hub_config: Text | None = None
    hub_revision: Text | None = None
    hub_commit: Text | None = None
    hub_splits: dict[str, str] | None = None
    validation_share: Share = 0.01
    documents: Literal["joined", "apart"] = "joined"
    limit_train: Count | None = None
    limit_validation: Count | None = None

    def __post_init__(self) -> None:
        """Check the settings against one another.

        Raises:
            ValueError: naming every setting that does not fit.
        """
        wrong = []
        if self.folder is None and self.hub is None:
            wrong.append("task.folder and task.hub are both null: say where the texts are (task.folder=./my_texts)")
        odd = [name for name in self.files if name not in ("train", "validation")]
        if odd or "train" not in self.files:
            wrong.append(f"task.files={dict(self.files)}: name train, and validation if there is one")
        wrong += self._wrong()
        lower = (self.loss, "perplexity")
        known = ("accuracy", "log_likelihood", *lower)
        for name in dict.fromkeys([*self.metrics, self.metric]):
            if name not in known:
                wrong.append(f"metric {name} does not exist for {self.asked}; choose among: {', '.join(known)}")
        if self.metric in lower:
            wrong.append(f"task.metric={self.metric} is better when lower; choose accuracy or log_likelihood")
        if wrong:
            raise ValueError("; ".join(wrong))

    # --- what a kind of task says ---------------------------------------------------------------------------------

    def _wrong(self) -> list[str]:
        """Say what is wrong with the settings of this kind of task."""
        return []

    @abstractmethod
    def _asking(self, reader: Any, context: DataContext) -> Asking:
        """Return what is asked of each sequence.

        Raises:
            ValueError: the tokenizer does not do for it.
        """

    @abstractmethod
    def _cut(self, reader: Any, context: DataContext) -> Cut:
        """Return how a tokenizer's tokens become sequences."""

    # --- where the files are --------------------------------------------------------------------------------------

    def _named(self, root: str | None) -> tuple[Path | None, dict[str, list[Path]]]:
        """Return the folder and its files by split, where there are any; no folder where the root is not set."""
        base = None if self.folder is None else files.place(self.folder, root)
        found: dict[str, list[Path]] = {}
        for split, names in self.files.items():
            for name in [names] if isinstance(names, str) else names:
                paths = sorted(p for p in base.glob(name) if p.suffix in corpus.FORMATS) if base is not None else []
                found.setdefault(split, []).extend(path for path in paths if path.is_file())
        return base, {split: paths for split, paths in found.items() if paths}

    def _paths(self, root: str | None, cache: Path | None) -> dict[str, list[Path]]:
        """Return the files by split, fetched from the hub where needed.

        Raises:
            ValueError: with the sentences of :meth:`problems`.
        """
        _, local = self._named(root)
        if "train" in local:
            return local
        wrong = self.problems(root)
        if wrong:
            raise ValueError(" ".join(wrong))
        assert self.hub is not None
        splits = self.hub_splits or {split: split for split in self.files}
        fetched = hub.fetch(cache, self.hub, self.hub_config, self._pinned, splits, ["validation"])
        return {split: [path] for split, path in fetched.items()}

    @property
    def _pinned(self) -> str | None:
        return self.hub_commit or self.hub_revision

    def problems(self, root: str | None) -> list[str]:
        """See :meth:`Task.problems`: missing root, files or column, a hub that is switched off."""
        base, local = self._named(root)
        if "train" in local:
            return [p for paths in local.values() for path in paths for p in self._column_problems(path)]
        off = hub.switched_off()
        if self.hub is not None and (off is None or self._cached()):
            return []
        if self.folder is None:
            return [f"task={self.name} reads task.hub={self.hub}, but the hub is switched off ({off}): unset it."]
        if base is None:
            return [
                f"task={self.name} reads <data.root>/{self.folder}; data.root is unset: set KDEXP_DATA or data.root."
            ]
        names = self.files["train"]
        return [
            f"task={self.name}: {base} has no file {names if isinstance(names, str) else ' or '.join(names)} with the "
            f"ending {', '.join(corpus.FORMATS)}: correct task.folder or task.files."
        ]

    def _column_problems(self, path: Path) -> list[str]:
        if path.suffix == corpus.PLAIN:
            return []
        try:
            present = files.header(path)
        except ValueError as error:
            return [f"task={self.name}: {error}."]
        if self.column in present:
            return []
        return [
            f"task={self.name}: {path} has no column {self.column} (it has {', '.join(present)}): change task.column."
        ]

    def _cached(self) -> bool:
        assert self.hub is not None
        known = network.remembered("dataset", self.hub, self._pinned).commit
        return known is not None or hub.in_library_cache(self.hub, self.hub_config, None)

    def pin(self, root: str | None, cache: Path, ask: bool) -> dict[str, Any]:
        """See :meth:`Task.pin`: the commit of the hub's data set, if that is what is read."""
        if self.hub is None or "train" in self._named(root)[1]:
            return {}
        return {"hub_commit": hub.commit(cache, self.hub, self.hub_config, self.hub_revision, ask)}

    def here(self, root: str | None, cache: Path) -> bool:
        """See :meth:`Task.here`."""
        if self.hub is None or "train" in self._named(root)[1]:
            return True
        return hub.fetched(cache, self.hub, self.hub_config, self._pinned)

    # --- texts ----------------------------------------------------------------------------------------------------

    def texts(self, split: str, root: str | None, cache: Path | None) -> Iterator[str]:
        """Return the documents of a split, one after another; none where it has no file.

        Raises:
            ValueError: a file cannot be read.
        """
        for path in self._paths(root, cache).get(split, []):
            try:
                yield from corpus.documents(path, self.column)
            except ValueError as error:
                raise ValueError(f"task={self.name}: {error}") from error

    def state(self, root: str | None, cache: Path | None) -> str:
        """Return a string that changes when the documents might; costs milliseconds."""
        paths = self._paths(root, cache)
        stats = {split: [(str(p.resolve()), p.stat()) for p in found] for split, found in paths.items()}
        seen = {
            split: [[path, stat.st_size, stat.st_mtime_ns] for path, stat in found] for split, found in stats.items()
        }
        return json.dumps([packing.SCHEMA, seen, self.column], sort_keys=True)

    def _known(self, root: str | None, cache: Path | None) -> dict[str, Any]:
        """Return the content's hash and the documents of each split, remembered or read once."""
        return encoding.remember(cache, "corpora", self.state(root, cache), lambda: self._read(root, cache))

    def _read(self, root: str | None, cache: Path | None) -> dict[str, Any]:
        sha, counts = hashlib.sha256(), {}
        for split in sorted(self._paths(root, cache)):
            counts[split] = 0
            for text in self.texts(split, root, cache):
                content = text.encode("utf-8", "surrogatepass")
                sha.update(f"{split} {len(content)}\n".encode() + content)
                counts[split] += 1
        if not counts.get("train"):
            raise ValueError(self._silent(root, cache))
        return {"sha256": sha.hexdigest(), "documents": counts}

    def _silent(self, root: str | None, cache: Path | None) -> str:
        path = self._paths(root, cache)["train"][0]
        where = "" if path.suffix == corpus.PLAIN else f" in its column {self.column}"
        return (
            f"task={self.name}: {path} has no text{where}: nothing can be learned; correct task.folder or task.column"
        )

    def fingerprint(self, root: str | None, cache: Path | None = None) -> str:
        """See :meth:`Task.fingerprint`: of all documents."""
        return str(self._known(root, cache)["sha256"])

    def record(self, root: str | None, cache: Path) -> list[str]:
        """Return the documents of each split."""
        counts = self._known(root, cache)["documents"]
        return [f"task {self.name}: {split} has {count} documents" for split, count in counts.items()]

    def unusable(self, context: DataContext) -> list[str]:
        """See :meth:`Task.unusable`: no text, a tokenizer that does not do for what is asked."""
        wrong = []
        try:
            if self.here(context.root, context.cache):
                texts = list(islice(self.texts("train", context.root, context.cache), SPECIMENS))
                wrong += [] if texts else [f"{self._silent(context.root, context.cache)}."]
        except ValueError as error:
            wrong.append(f"{error}.")
        if context.options.get("local_files_only") and (Path(context.model) / "config.json").is_file():
            try:
                self._asking(tokenizer.load(context.model, context.options.get("revision"), self.pads), context)
            except ValueError as error:
                wrong.append(f"{error}.")
        return wrong

    # --- the interface --------------------------------------------------------------------------------------------

    def datasets(self, context: DataContext) -> dict[str, Dataset]:
        """See :meth:`Task.datasets`: packed once; a document is in one split only, wherever its text stands."""
        reader = tokenizer.of_teacher(context, self.pads)
        asking, cut = self._asking(reader, context), self._cut(reader, context)
        data = self.fingerprint(context.root, context.cache)
        shares = self._shares(context)
        key = f"{data} {tokenizer.digest(reader)} {shares} {self.limit_train}"
        made = packing.packed_once(context.cache, key, cut, asking, partial(self._make, cut, reader, shares, context))
        for split in ("train", "validation", *shares):
            if split not in made or not len(made[split]):
                raise ValueError(
                    f"task={self.name}: no document of train falls into {split}: raise data.heldout or "
                    "task.validation_share, or give more texts"
                )
        train = made.pop("train")
        if self.limit_train is not None and self.limit_train < len(train):
            rows = slice(self.limit_train)
            train = replace(train, tokens=train.tokens[rows], lengths=train.lengths[rows])
        return {"train": train, **{name: packing.evenly(part, self.limit_validation) for name, part in made.items()}}

    def _shares(self, context: DataContext) -> dict[str, float]:
        """Return the splits that are cut from train's documents, each with its share."""
        shares = {"heldout": context.heldout} if context.heldout else {}
        if "validation" not in self._paths(context.root, context.cache):
            shares["validation"] = self.validation_share
        return shares

    def _make(self, cut: Cut, reader: Any, shares: dict[str, float], context: DataContext, folder: Path) -> None:
        context.say(f"task {self.name}: packing texts into sequences of {cut.length} tokens")

        def tokenize(texts: list[str]) -> list[list[int]]:
            return list(reader(texts, **tokenizer.AS_IT_IS, return_attention_mask=False)["input_ids"])

        packing.pack(folder, cut, tokenize, self._placed(shares, context), partial(self._enough, shares))

    def _placed(self, shares: dict[str, float], context: DataContext) -> Iterator[tuple[str, str]]:
        """Return all documents with the split that each is in; of train the last, for it may end early."""
        if "validation" not in shares:
            for text in self.texts("validation", context.root, context.cache):
                yield "validation", text
        for text in self.texts("train", context.root, context.cache):
            at, split = corpus.place(text), "train"
            for name, size in shares.items():
                if 0 <= at < size:
                    split = name
                at -= size
            yield split, text

    def _enough(self, shares: dict[str, float], sequences: Mapping[str, int]) -> bool:
        """Tell whether a limited corpus need not be read further."""
        if self.limit_train is None or sequences.get("train", 0) < self.limit_train:
            return False
        return all(sequences.get(name, 0) >= FEWEST for name in shares)

    def save_preprocessor(self, context: DataContext, folder: Path) -> None:
        """See :meth:`Task.save_preprocessor`: the teacher's tokenizer."""
        tokenizer.save(tokenizer.of_teacher(context, self.pads), folder, context.max_length)

    def evaluate(self, predictions: Predictions, targets: Targets) -> dict[str, float]:
        """Return accuracy and loss at the tokens that are asked for.

        Raises:
            ValueError: predictions are not finite.
        """
        found = scores(predictions, targets, self.loss)
        if not np.isfinite(found[self.loss]):
            raise ValueError(
                f"the loss of {self.asked} is not finite: the training diverged (lower recipe.learning_rate)"
            )
        return {name: found[name] for name in self.metrics}
