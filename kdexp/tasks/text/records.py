"""What tasks on files share whose rows are no plain texts with a label: read once, checked, cut, tokenised once, kept.

A subclass says what a row is (:class:`Records`), how a file of them is read and how they become arrays.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np

from kdexp.common import locks
from kdexp.common.problems import ConfigError
from kdexp.config.schema import Count
from kdexp.tasks.base import UNLABELLED, DataContext, Dataset
from kdexp.tasks.text import arrays, encoding, tokenizer
from kdexp.tasks.text.arrays import Parts
from kdexp.tasks.text.place import Located
from kdexp.tasks.text.rows import Rows, held, limit_of, limited

SCHEMA = 1
"""Raise it when the same file may be read as other rows, or the arrays made of them mean something else."""

SPECIMENS = 1000
"""Training rows that a tokenizer is tried on."""


class Records(ABC):
    """The rows of one split."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, index: np.ndarray) -> Self:
        """Return the rows at ``index``, in that order."""

    @abstractmethod
    def content(self) -> Iterable[Any]:
        """Return what each row says, as plain values, independent of file format and place."""

    @abstractmethod
    def texts(self) -> list[str]:
        """Return a text of each row, for a look at a tokenizer."""

    def digest(self) -> str:
        """sha256 (hex) over all rows in order."""
        sha = hashlib.sha256()
        for row in self.content():
            data = json.dumps(row).encode()
            sha.update(len(data).to_bytes(8, "little") + data)
        return sha.hexdigest()


R = TypeVar("R", bound=Records)

_READ: dict[str, Any] = {}
"""What this process has read, by state: the splits, or the sentences that say why they cannot be used."""
_UNUSABLE: dict[str, list[str]] = {}
"""What is wrong with tokenizers that this process has tried."""


@dataclass
class RecordTask(Located, Generic[R]):
    """A task on a file of records a split.

    Attributes:
        limit_train: use only so many training rows (always the same ones), before the held-out part is cut; null =
            all. A limited task has another content hash.
        limit_validation: score on so many rows of each validation split (always the same ones); null = all. The task's
            name is then marked as that of a part.
    """

    limit_train: Count | None = None
    limit_validation: Count | None = None

    # --- what a subclass gives ------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, path: Path, labelled: bool = True) -> R:
        """Read a file.

        Args:
            labelled: False: labels are not looked at, and may be missing.

        Raises:
            ValueError: a row that cannot be used, with its place.
        """

    @abstractmethod
    def reading(self) -> list[Any]:
        """Return the settings that decide what is read, as plain values."""

    @abstractmethod
    def counted(self, rows: R) -> dict[str, Any]:
        """Return what the log says of a split, by name, as plain values; ``rows`` among them."""

    @abstractmethod
    def encoding(self) -> list[Any]:
        """Return the settings that decide what arrays are made of the rows, beside the length of inputs."""

    @abstractmethod
    def encoded(self, reader: Any, max_length: int, rows: R) -> Parts:
        """Tokenise a split.

        Args:
            reader: a fast tokenizer of transformers.
        """

    @abstractmethod
    def dataset(self, rows: R, values: dict[str, np.ndarray], numbers: dict[str, int]) -> Dataset:
        """Make a split of its rows and of what :meth:`encoded` gave, read back."""

    def apart(self, train: R, share: float) -> np.ndarray:
        """Return which training rows are held out: always the same ones.

        Raises:
            ValueError: the share leaves one side empty.
        """
        chosen = np.random.default_rng([0, len(train)]).permutation(len(train))[: held(len(train), share)]
        return np.sort(chosen)

    def too_short(self, reader: Any, max_length: int) -> str:
        """Say why inputs of ``max_length`` tokens cannot be made, as a sentence; '' = they can."""
        return ""

    def leaks(self, splits: Mapping[str, R]) -> list[str]:
        """Return lines for the log about rows that training shares with what is scored."""
        return []

    # --- rows without labels --------------------------------------------------------------------------------------

    def unlabelled_rows(self, root: str | None) -> R:
        """See :meth:`Located.unlabelled_rows`: one file of them."""
        found = self.unlabelled_files(root)
        if len(found) > 1:
            raise ValueError(f"task.unlabelled={self.unlabelled} holds {len(found)} files: name one of them")
        rows = self.read(found[0], labelled=False)
        if not len(rows):
            raise ValueError(f"{found[0]} has no rows")
        return rows

    def asked(self, rows: R) -> list[Any]:
        """See :meth:`Located.asked`: all texts of a row."""
        return list(rows.texts())

    def labelled_rows(self, root: str | None, cache: Path | None) -> dict[str, R]:
        """See :meth:`Located.labelled_rows`."""
        return self.records(root, cache)

    # --- the interface --------------------------------------------------------------------------------------------

    def problems(self, root: str | None) -> list[str]:
        """See :meth:`Located.problems`."""
        wrong = super().problems(root)
        if not wrong and self.without_labels:
            wrong.append(
                f"task={self.name} needs labelled rows beside task.unlabelled={self.unlabelled}: only texts with a "
                "class or a score each can do without; name task.folder, or drop train from task.optional."
            )
        return wrong

    def _state(self, root: str | None, cache: Path | None) -> str:
        said = [SCHEMA, type(self).__name__, self.file_state(root, cache), self.reading(), self.limit_train]
        return json.dumps([*said, *([] if self.limit_validation is None else [self.limit_validation])], sort_keys=True)

    def marks(self, root: str | None) -> list[tuple[str, str]]:
        """See :meth:`Task.marks`: not all validation rows are scored."""
        return [*super().marks(root), *limited(self)]

    def records(self, root: str | None, cache: Path | None) -> dict[str, R]:
        """Return all rows of all splits that exist, read once a process; nothing is held out.

        Raises:
            ConfigError: files, columns or rows that do not fit (of each file, the first).
        """
        state = self._state(root, cache)
        if state not in _READ:
            _READ[state] = self._read_all(root, cache)
        if isinstance(_READ[state], list):
            raise ConfigError(_READ[state])
        splits: dict[str, R] = _READ[state]
        return splits

    def _read_all(self, root: str | None, cache: Path | None) -> dict[str, R] | list[str]:
        splits: dict[str, R] = {}
        wrong = []
        for split, path in self._files(root, cache).items():
            try:
                splits[split] = self.read(path)
                if not len(splits[split]):
                    raise ValueError(f"{path} has no rows")
            except ValueError as error:
                wrong.append(f"task={self.name}: {error}.")
        if wrong:
            return wrong
        for name, rows in splits.items():
            limit = limit_of(self, name)
            if limit is not None and limit < len(rows):
                some = np.random.default_rng([0, len(rows)]).permutation(len(rows))[:limit]
                splits[name] = rows.take(np.sort(some))
        return splits

    def _known(self, root: str | None, cache: Path | None) -> dict[str, Any]:
        """What is remembered of the rows: ``sha256`` of all, what is counted by split, lines about leaks."""

        def look() -> dict[str, Any]:
            splits = self.records(root, cache)
            sha = hashlib.sha256()
            for name, rows in sorted(splits.items()):
                sha.update(f"{name} {rows.digest()}\n".encode())
            counts = {name: self.counted(rows) for name, rows in splits.items()}
            return {"sha256": sha.hexdigest(), "splits": counts, "leaks": self.leaks(splits)}

        return encoding.remember(cache, "fingerprints", self._state(root, cache), look)

    def fingerprint(self, root: str | None, cache: Path | None = None) -> str:
        """See :meth:`Task.fingerprint`; covers what is used after ``limit_train``, whatever file it came from."""
        return str(self._known(root, cache)["sha256"])

    def record(self, root: str | None, cache: Path) -> list[str]:
        """See :meth:`Task.record`."""
        known = self._known(root, cache)
        lines = [
            f"task {self.name}: {split} has " + ", ".join(f"{count} {what}" for what, count in counts.items())
            for split, counts in known["splits"].items()
        ]
        return [*lines, *known["leaks"], *self.unlabelled_record(root, cache)]

    def unusable(self, context: DataContext) -> list[str]:
        """See :meth:`Task.unusable`: rows that cannot be used, nothing to hold out, a tokenizer that does not fit."""
        root, cache, wrong = context.root, context.cache, list[str]()
        if self.at_hand(root, cache):
            try:
                self.apart(self.records(root, cache)["train"], context.heldout)
            except ConfigError as error:
                wrong += error.problems
                if self.has_further:
                    self._counted_further(root, cache, keep=False)
            except ValueError as error:
                wrong.append(f"task={self.name}: {error}.")
        if context.options.get("local_files_only") and (Path(context.model) / "config.json").is_file():
            wrong += self._unreadable(context, texts=not wrong and self.at_hand(root, cache))
        return wrong

    def _unreadable(self, context: DataContext, texts: bool) -> list[str]:
        """Say why a local teacher's tokenizer cannot be used; it is tried on training texts too, once a process."""
        asked = f"{tokenizer.state(context)} {texts and self._pair(context)} {context.max_length} {self.encoding()}"
        if asked not in _UNUSABLE:
            try:
                reader = self._reader(replace(context, max_length=0))  # the length has a check of its own
                short = self.too_short(reader, context.max_length)
                _UNUSABLE[asked] = [short] if short else []
                if texts and encoding.recall(context.cache, "tokenizers", self._pair(context)) is None:
                    self._try(reader, context)
            except ValueError as error:
                _UNUSABLE[asked] = [f"{context.place}.source: {error}"]
        return _UNUSABLE[asked]

    def _reader(self, context: DataContext) -> Any:
        """Load the teacher's tokenizer, which must say where in a text its tokens are.

        Raises:
            ValueError: there is none, or it cannot.
        """
        reader = tokenizer.of_teacher(context)
        if not reader.is_fast:
            raise ValueError(
                f"the tokenizer of {context.model} ({type(reader).__name__}) cannot say where in a text its tokens "
                f"are, which task={self.name} needs: save the model with a fast tokenizer (a tokenizer.json)"
            )
        return reader

    def _pair(self, context: DataContext) -> str:
        """Name a tokenizer and the texts that it shall read."""
        return f"{tokenizer.state(context)} {self._state(context.root, context.cache)}"

    def _try(self, reader: Any, context: DataContext) -> dict[str, float]:
        """Return the share of tokens of some training texts that a tokenizer does not know.

        Raises:
            ValueError: it is too large.
        """
        train = self.records(context.root, context.cache)["train"]
        some = np.unique(np.linspace(0, len(train) - 1, min(SPECIMENS, len(train))).astype(np.int64))
        texts = train.take(some).texts()
        rows = Rows(texts, None, np.zeros(len(texts)))
        return {"unknown": tokenizer.refuse_unknown(reader, rows, context.model, self.name)}

    def splits(self, root: str | None, heldout: float, cache: Path | None = None) -> dict[str, R]:
        """Return the rows by split: ``train``, ``heldout`` (if anything is held out), ``validation`` and further ones.

        Raises:
            ValueError: rows that cannot be used, or nothing to hold out.
        """
        rows = self.records(root, cache)
        train, chosen = rows["train"], self.apart(rows["train"], heldout)
        rest = np.setdiff1d(np.arange(len(train)), chosen)
        return {
            "train": train.take(rest),
            **({"heldout": train.take(chosen)} if len(chosen) else {}),
            **{name: split for name, split in rows.items() if name != "train"},
        }

    def datasets(self, context: DataContext) -> dict[str, Dataset]:
        """See :meth:`Task.datasets`: the rows as the teacher's tokenizer cuts them."""
        root, cache, length = context.root, context.cache, context.max_length
        reader = self._reader(context)
        short = self.too_short(reader, length)
        if short:
            raise ValueError(short)
        encoding.remember(cache, "tokenizers", self._pair(context), lambda: self._try(reader, context))
        data = self.fingerprint(root, cache)
        made = self._made(reader, length, [data, context.heldout], self.splits(root, context.heldout, cache), cache)
        if self.has_further:
            further = {UNLABELLED: self.unlabelled_rows(root)}
            made |= self._made(reader, length, [UNLABELLED, self.further(root, cache)], further, cache)
            made[UNLABELLED].labelled = False
        return made

    def _made(
        self, reader: Any, length: int, which: list[Any], splits: Mapping[str, R], cache: Path
    ) -> dict[str, Dataset]:
        """Tokenise splits once; kept below ``cache``.

        Args:
            which: what decides the rows.
        """
        key = json.dumps([SCHEMA, type(self).__name__, *which, self.encoding(), tokenizer.digest(reader), length])
        folder = Path(cache) / "encoded" / hashlib.sha256(key.encode()).hexdigest()[:32]
        made = locks.once(
            folder,
            lambda entry: arrays.load(entry, lambda values, numbers: (values, numbers)),
            lambda: arrays.save(folder, {name: self.encoded(reader, length, rows) for name, rows in splits.items()}),
        )
        return {name: self.dataset(rows, *made[name]) for name, rows in splits.items()}

    def unseen(self, context: DataContext, split: str, file: Path | None = None) -> Dataset:
        """See :meth:`Task.unseen`."""
        rows = self.read(file or self.other_file(split, context.root, context.cache), labelled=False)
        if not len(rows):
            raise ValueError("there are no rows")
        reader = self._reader(context)
        short = self.too_short(reader, context.max_length)
        if short:
            raise ValueError(short)
        values, numbers = self.encoded(reader, context.max_length, rows)
        return self.dataset(rows, dict(values), dict(numbers))

    def save_preprocessor(self, context: DataContext, folder: Path) -> None:
        """See :meth:`Task.save_preprocessor`: the teacher's tokenizer, which cuts where the model's texts were cut."""
        tokenizer.save(tokenizer.of_teacher(context), folder, context.max_length)
