"""Tokenised splits on disk: made once, by whichever process comes first, read by all others.

An entry is a folder ``<cache>/encoded/<key>/`` with plain ``.npy`` arrays (memory-mapped, so that processes share
them) and ``meta.json``. It is written aside and moved into place whole.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdexp.common import files, locks
from kdexp.tasks.base import Batch, Dataset, Targets
from kdexp.tasks.text import arrays
from kdexp.tasks.text.rows import Rows
from kdexp.tasks.text.tokenizer import digest

log = logging.getLogger(__name__)

SCHEMA = 2
"""Raise it when the meaning of the arrays changes."""

CHUNK = 4096
"""Texts a call of the tokenizer."""


LABEL = "label"
"""Name of an example's class id or score in batches and targets."""


@dataclass
class Encoded(Dataset):
    """One split of texts, tokenised: ragged token ids in two flat arrays, ready to be padded into batches.

    Attributes:
        tokens: (total,) int32, the ids of all examples one after another.
        types: (total,) int8 segment ids, or None where the model has none.
        offsets: (n + 1,) int64; example i is ``tokens[offsets[i]:offsets[i + 1]]``.
        labels: (n,) int64 classes or float32 scores.
        pad: id of the padding token.
        truncated: number of examples that were cut to the maximal length.
    """

    tokens: np.ndarray
    types: np.ndarray | None
    offsets: np.ndarray
    labels: np.ndarray
    pad: int
    truncated: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def costs(self) -> np.ndarray:
        """(n,) token counts."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def targets(self) -> Targets:
        """Class ids or scores."""
        return {LABEL: self.labels}

    @property
    def facts(self) -> dict[str, Any]:
        """How many texts were cut."""
        return {"truncated": self.truncated}

    def arrays(self) -> dict[str, np.ndarray]:
        """What it is made of, by name."""
        return {name: getattr(self, name) for name in ARRAYS if getattr(self, name) is not None}

    def numbers(self) -> dict[str, int]:
        """What it is made of beside arrays."""
        return {"pad": self.pad, "truncated": self.truncated}

    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Batch:
        """Pad examples into one batch; nothing is drawn at random.

        Its inputs are ``input_ids`` (B, L) int64, ``attention_mask`` (B, L) int64, 1 = real token, and
        ``token_type_ids`` (B, L) where the model has them.

        Raises:
            ValueError: an example is longer than ``width``.
        """
        import torch

        index = np.asarray(index, dtype=np.int64)
        start, lengths = self.offsets[index], self.costs[index]
        longest = int(lengths.max())
        width = int(width or longest)
        if width < longest:
            raise ValueError(f"width={width} is shorter than the longest example of the batch ({longest} tokens)")
        real = np.arange(width) < lengths[:, None]
        source = (start[:, None] + np.arange(width))[real]
        ids = np.full(real.shape, self.pad, dtype=np.int64)
        ids[real] = self.tokens[source]
        inputs = {"input_ids": ids, "attention_mask": real.astype(np.int64)}
        if self.types is not None:
            types = np.zeros(real.shape, dtype=np.int64)
            types[real] = self.types[source]
            inputs["token_type_ids"] = types
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        labels = torch.from_numpy(np.ascontiguousarray(self.labels[index]))
        return Batch(tensors, tensors["attention_mask"], {LABEL: labels}, torch.from_numpy(index))

    def vocabulary(self) -> np.ndarray:
        """See :meth:`Dataset.vocabulary`: the tokens, and padding."""
        return np.union1d(np.flatnonzero(np.bincount(self.tokens)), [self.pad]).astype(np.int64)

    def specimen(self, size: int, length: int) -> Batch:
        """Return random ids of the split's vocabulary, ``length`` tokens each, none of them padding."""
        import torch

        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, int(self.tokens.max()) + 1, (size, length), generator=generator)
        mask = torch.ones_like(ids)
        return Batch({"input_ids": ids, "attention_mask": mask}, mask, {}, torch.arange(size))


class OfEncoded(Dataset):
    """A split whose items are those of its tokens, ``encoded``, with other labels than a class or a score."""

    encoded: Encoded

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def costs(self) -> np.ndarray:
        """(n,) token counts."""
        return self.encoded.costs

    def vocabulary(self) -> np.ndarray:
        """See :meth:`Dataset.vocabulary`."""
        return self.encoded.vocabulary()

    def specimen(self, size: int, length: int) -> Batch:
        """See :meth:`Dataset.specimen`."""
        return self.encoded.specimen(size, length)


def remember(cache: Path | None, kind: str, state: str, compute: Callable[[], dict]) -> dict:
    """Return ``compute()``, kept as ``<cache>/<kind>/<sha256 of state>.json``; one process computes, others wait.

    Without ``cache`` nothing is kept. A damaged file is made anew, with a warning.
    """
    if cache is None:
        return compute()
    path = _remembered(cache, kind, state)
    return locks.once(path, _read, lambda: files.write_record(path, compute()))


def recall(cache: Path | None, kind: str, state: str) -> dict | None:
    """Return what :func:`remember` has kept, or None; writes nothing."""
    return None if cache is None else _read(_remembered(cache, kind, state))


def remembers(cache: Path | None, kind: str, state: str) -> bool:
    """Whether :func:`recall` would find something, as far as a look at the folder tells."""
    return cache is not None and _remembered(cache, kind, state).is_file()


def _remembered(cache: Path, kind: str, state: str) -> Path:
    return Path(cache) / kind / f"{hashlib.sha256(f'{SCHEMA} {state}'.encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> dict | None:
    try:
        return files.read_record(path, {}, strict=True)
    except files.Damaged as error:
        log.warning("%s and is made anew", error)
        return None


def encode_once(
    tokenizer: Any, max_length: int, key: str, make: Callable[[], dict[str, Rows]], cache: Path
) -> dict[str, Encoded]:
    """Tokenised splits from the cache, or made and put there.

    Args:
        tokenizer: of transformers.
        max_length: tokens after which an example is cut (of a pair, the longer text first).
        key: what decides the rows (their content hash and how they are cut).
        make: gives the rows; called only when the entry is missing.
        cache: folder.

    Raises:
        ValueError: ``max_length`` leaves no room for text.
    """
    folder = _encoded(digest(tokenizer), max_length, key, cache)

    def write() -> None:
        _save(folder, {name: encode(tokenizer, rows, max_length) for name, rows in make().items()})

    return locks.once(folder, load, write)


def encoded(reader: str, max_length: int, key: str, cache: Path) -> dict[str, Encoded] | None:
    """Return what :func:`encode_once` has kept of a tokenizer with this digest, or None."""
    return load(_encoded(reader, max_length, key, cache))


def _encoded(reader: str, max_length: int, key: str, cache: Path) -> Path:
    parts = f"{SCHEMA} {key} {reader} {max_length}"
    return Path(cache) / "encoded" / hashlib.sha256(parts.encode()).hexdigest()[:32]


def encode(tokenizer: Any, rows: Rows, max_length: int) -> Encoded:
    """Tokenise one split.

    Raises:
        ValueError: ``max_length`` leaves no room for text beside the special tokens.
    """
    special = tokenizer.num_special_tokens_to_add(pair=rows.second is not None)
    texts = 1 if rows.second is None else 2
    if max_length < special + texts:
        raise ValueError(f"max_length={max_length}: at least {special + texts} ({special} special tokens and a text)")
    typed = "token_type_ids" in tokenizer.model_input_names
    tokens, types, lengths, truncated = [], [], [np.zeros(1, np.int64)], 0
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        pair = {} if rows.second is None else {"text_pair": rows.second[part]}
        out = tokenizer(
            rows.first[part],
            **pair,
            truncation="longest_first",
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=typed,
        )
        ids = out["input_ids"]
        tokens.append(np.fromiter((t for row in ids for t in row), dtype=np.int32))
        if typed:
            types.append(np.fromiter((t for row in out["token_type_ids"] for t in row), dtype=np.int8))
        lengths.append(np.array([len(row) for row in ids], dtype=np.int64))
        truncated += _cut(tokenizer, out, rows, start, max_length)
    empty = [np.zeros(0, np.int32)]
    return Encoded(
        tokens=np.concatenate(tokens or empty),
        types=np.concatenate(types) if types else None,
        offsets=np.cumsum(np.concatenate(lengths)),
        labels=rows.labels,
        pad=int(tokenizer.pad_token_id or 0),
        truncated=truncated,
    )


def _cut(tokenizer: Any, out: Any, rows: Rows, start: int, max_length: int) -> int:
    """How many examples of a chunk lost tokens."""
    if out.encodings is not None:
        return sum(bool(e.overflowing) for e in out.encodings)
    full = [i for i, row in enumerate(out["input_ids"], start) if len(row) >= max_length]
    pairs = [(rows.first[i],) if rows.second is None else (rows.first[i], rows.second[i]) for i in full]
    return sum(len(tokenizer(*texts, verbose=False)["input_ids"]) > max_length for texts in pairs)


ARRAYS = ("tokens", "types", "offsets", "labels")


def of_arrays(values: Mapping[str, np.ndarray], pad: int, truncated: int) -> Encoded:
    """Make a split of the arrays called :data:`ARRAYS` among ``values``, of which ``types`` may be missing."""
    tokens, offsets, labels = (values[name] for name in ("tokens", "offsets", "labels"))
    return Encoded(tokens, values.get("types"), offsets, labels, pad, truncated)


def _save(folder: Path, splits: dict[str, Encoded]) -> None:
    """Write an entry: see :func:`kdexp.tasks.text.arrays.save`."""
    arrays.save(folder, {name: (split.arrays(), split.numbers()) for name, split in splits.items()})


def load(folder: Path) -> dict[str, Encoded] | None:
    """Read an entry: see :func:`kdexp.tasks.text.arrays.load`."""
    return arrays.load(folder, lambda values, numbers: of_arrays(values, **numbers))
