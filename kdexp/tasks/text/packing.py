"""Raw text as sequences of one length, on disk: tokenised once, read by all processes through the memory map.

An entry is a folder ``<cache>/packed/<key>/``: of each split ``<split>.tokens`` (n, L), ``<split>.lengths`` (n,) int32
and ``<split>.counts`` (V,) int64 as plain numbers, and ``meta.json`` with their sizes and checksums. It is written
aside and moved into place whole; what is damaged is named and made anew. Neither making nor reading one needs the
corpus in memory.

Legend: n sequences, L positions, V entries of the vocabulary.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from kdexp.common import files
from kdexp.common.locks import once
from kdexp.heads.hidden_tokens import COUNTS, PLACES, TOKENS
from kdexp.tasks.base import Batch, Dataset, Targets

log = logging.getLogger(__name__)

SCHEMA = 1
"""Raise it when the meaning of the files changes."""
CHUNK = 4_000_000
"""Characters a call of the tokenizer, whose own threads share them."""
ARRAYS = (TOKENS, "lengths", COUNTS)
BLOCK = 1024
"""Sequences that are looked at together when something is computed of a whole split."""


@dataclass(frozen=True)
class Cut:
    """How texts become sequences.

    Attributes:
        length: L, tokens of a sequence with the special ones.
        joined: texts run on, a separator between two; False = no sequence has parts of two texts, and the last one of
            each text is padded.
        before, after: special tokens around a sequence.
        between: the separator of texts; None = there is none.
        pad: id of the padding token.
        entries: V.
    """

    length: int
    joined: bool
    before: tuple[int, ...]
    after: tuple[int, ...]
    between: int | None
    pad: int
    entries: int

    @property
    def room(self) -> int:
        """Return how many tokens of text a sequence has."""
        return self.length - len(self.before) - len(self.after)

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """Return what ids are kept as."""
        return np.uint16 if self.entries <= 2**16 else np.uint32


class Asking(Protocol):
    """What is asked of sequences; a pure function of a seed and of an example's number."""

    def hide(self, ids_BL: np.ndarray, real_BL: np.ndarray, seed: int, examples: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return ids as a model sees them (B, L), places where it is asked (B, M), and the ids that are right (B, M).

        Args:
            ids_BL: int64 ids.
            real_BL: bool, False = padding.
            seed: of what is drawn.
            examples: (B,) numbers of the sequences.
        """


@dataclass
class Packed(Dataset):
    """One split: sequences of which some tokens are asked for.

    Attributes:
        tokens: (n, L) ids, memory-mapped.
        lengths: (n,) tokens of each that are not padding.
        counts: (V,) how often each id stands there, special ones left out.
        masking: what is asked, such as hidden tokens.
        pad: id of the padding token.
        documents: texts that the sequences were made of.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray
    masking: Asking
    pad: int
    documents: int

    fixed = False

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def costs(self) -> np.ndarray:
        """(n,) tokens."""
        return self.lengths

    @property
    def targets(self) -> Targets:
        """Hidden tokens as they are for scoring, made when somebody looks; and :data:`COUNTS`."""
        return HiddenTokens(self)

    @property
    def facts(self) -> dict[str, Any]:
        """How many texts and tokens there are."""
        return {"documents": self.documents, "tokens": int(self.counts.sum())}

    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Batch:
        """Make a batch with hidden tokens: ``input_ids`` and ``attention_mask`` (B, L), labels as the head names them.

        Raises:
            ValueError: a sequence is longer than ``width``.
        """
        import torch

        index = np.asarray(index, dtype=np.int64)
        ids, real, places, hidden = self.hidden(index, step_seed, width)
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(real.astype(np.int64))}
        labels = {TOKENS: torch.from_numpy(hidden), PLACES: torch.from_numpy(places)}
        return Batch(inputs, inputs["attention_mask"], labels, torch.from_numpy(index))

    def hidden(self, index: np.ndarray, step_seed: int | None, width: int | None = None) -> tuple[np.ndarray, ...]:
        """Return ids as a model sees them, what is real (both (B, L)), places and hidden ids (both (B, M))."""
        lengths = self.lengths[index]
        longest = int(lengths.max())
        size = int(width or longest)
        if size < longest:
            raise ValueError(f"width={size} is shorter than the longest example of the batch ({longest} tokens)")
        ids = np.full((len(index), size), self.pad, dtype=np.int64)
        have = min(size, self.tokens.shape[1])
        ids[:, :have] = self.tokens[index, :have]
        real = np.arange(size) < lengths[:, None]
        seen, places, hidden = self.masking.hide(ids, real, 0 if step_seed is None else step_seed + 1, index)
        return seen, real, places, hidden


class HiddenTokens(Mapping[str, Any]):
    """The labels of a whole split, by name, made when they are asked for: a corpus has too many to keep."""

    def __init__(self, split: Packed) -> None:
        self.split = split

    def __iter__(self) -> Iterator[str]:
        return iter((TOKENS, COUNTS))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, name: str) -> np.ndarray:
        return {TOKENS: lambda: self._tokens, COUNTS: lambda: self.split.counts}[name]()

    @cached_property
    def _tokens(self) -> np.ndarray:
        """(n, M) ids hidden for scoring."""
        rows, width = np.arange(len(self.split)), self.split.tokens.shape[1]
        blocks = [self.split.hidden(rows[i : i + BLOCK], None, width)[3] for i in range(0, len(rows), BLOCK)]
        return np.concatenate(blocks)


def evenly(split: Packed, most: int | None) -> Packed:
    """Return at most so many sequences of a split, evenly spaced, as a split of their own: for scoring on fewer."""
    if most is None or most >= len(split):
        return split
    rows = np.linspace(0, len(split) - 1, most).astype(np.int64)
    return replace(split, tokens=np.array(split.tokens[rows]), lengths=split.lengths[rows])


# --- making an entry -------------------------------------------------------------------------------------------------


class Writer:
    """Writes the sequences of one split.

    Args:
        folder, name: where.
        cut: how texts become sequences.
    """

    def __init__(self, folder: Path, name: str, cut: Cut) -> None:
        self.cut, self.sequences, self.documents = cut, 0, 0
        self.counts = np.zeros(cut.entries, dtype=np.int64)
        self.rest: list[np.ndarray] = []  # of texts that run on
        self.files: dict[str, BinaryIO] = {what: (folder / f"{name}.{what}").open("wb") for what in ARRAYS[:2]}
        self.path = folder / f"{name}.{COUNTS}"

    def add(self, texts: Iterable[list[int]]) -> None:
        """Take some tokenised texts."""
        for text in texts:
            ids = np.asarray(text, dtype=np.int64)
            self.documents += 1
            self.counts += np.bincount(ids, minlength=self.cut.entries)
            if not self.cut.joined:
                whole = len(ids) // self.cut.room * self.cut.room
                self._write(ids[:whole].reshape(-1, self.cut.room))
                self._write(ids[None, whole:])
                continue
            self.rest += [ids] if self.cut.between is None else [ids, np.array([self.cut.between])]
        if self.rest:
            running = np.concatenate(self.rest)
            whole = len(running) // self.cut.room * self.cut.room
            self._write(running[:whole].reshape(-1, self.cut.room))
            self.rest = [running[whole:]]

    def close(self) -> dict[str, int]:
        """Write what is left over, and return the numbers that the entry keeps."""
        if self.rest:
            last = self.rest[0]
            self._write(last[None, : len(last) - (self.cut.between is not None)])  # nothing comes after the last text
        for file in self.files.values():
            file.close()
        self.counts.tofile(self.path)
        return {"sequences": self.sequences, "documents": self.documents}

    def _write(self, ids: np.ndarray) -> None:
        """Write sequences (n, room), or one that is shorter; an empty one is none."""
        if not ids.size:
            return
        cut = self.cut
        made = np.full((len(ids), cut.length), cut.pad, dtype=cut.dtype)
        start, end = len(cut.before), len(cut.before) + ids.shape[1]
        made[:, :start], made[:, start:end], made[:, end : end + len(cut.after)] = cut.before, ids, cut.after
        self.files[TOKENS].write(made.tobytes())
        self.files["lengths"].write(np.full(len(ids), end + len(cut.after), dtype=np.int32).tobytes())
        self.sequences += len(ids)


def pack(
    folder: Path, cut: Cut, tokenize: Callable[[list[str]], list[list[int]]], texts: Iterator[tuple[str, str]],
    enough: Callable[[Mapping[str, int]], bool],
) -> None:  # fmt: skip
    """Write an entry.

    Args:
        folder: of the entry; it appears whole.
        cut: how texts become sequences.
        tokenize: texts to ids, without special tokens.
        texts: (split, text) in the order of the corpus.
        enough: tells from the sequences by split whether the rest of the corpus is not needed.
    """
    with files.fresh_folder(folder) as aside:
        writers: dict[str, Writer] = {}
        for chunk in _chunks(texts):
            for name in dict.fromkeys(split for split, _ in chunk):
                if name not in writers:
                    writers[name] = Writer(aside, name, cut)
                writers[name].add(tokenize([text for split, text in chunk if split == name]))
            if enough({name: writer.sequences for name, writer in writers.items()}):
                break
        meta = {name: writer.close() for name, writer in writers.items()}
        sums = {name: {w: files.checksum(aside / f"{name}.{w}") for w in ARRAYS} for name in meta}
        files.write_record(aside / "meta.json", {"splits": meta, "sha256": sums})


def _chunks(texts: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Return texts in portions that are tokenised at once; the first ones are small, for whoever needs little."""
    chunk, size, most = list[tuple[str, str]](), 0, CHUNK // 64
    for item in texts:
        chunk.append(item)
        size += len(item[1])
        if size >= most:
            yield chunk
            chunk, size, most = [], 0, min(CHUNK, 2 * most)
    if chunk:
        yield chunk


# --- reading one -----------------------------------------------------------------------------------------------------

_SOUND: set[tuple[str, int, int]] = set()
"""Files whose checksums this process has compared: (path, size, time)."""


def packed_once(cache: Path, key: str, cut: Cut, masking: Asking, make: Callable[[Path], None]) -> dict[str, Packed]:
    """Return the splits of an entry, made if it is missing or damaged; one process makes it, the others wait.

    Args:
        cache: folder.
        key: what decides the texts and the ids.
        cut: how texts become sequences.
        masking: what is asked, such as hidden tokens.
        make: writes the entry into the folder that it is given.
    """
    parts = f"{SCHEMA} {key} {cut}"
    folder = Path(cache) / "packed" / hashlib.sha256(parts.encode()).hexdigest()[:32]
    return once(folder, lambda entry: load(entry, cut, masking), lambda: make(folder))


def load(folder: Path, cut: Cut, masking: Asking) -> dict[str, Packed] | None:
    """Read an entry, memory-mapped; None where there is none, or a damaged one (then with a warning)."""
    if not folder.is_dir():
        return None
    try:
        meta = files.read_record(folder / "meta.json", {"splits": dict, "sha256": dict}, strict=True)
        if meta is None:
            raise files.Damaged(folder / "meta.json", "it is missing")
        for name, sums in meta["sha256"].items():
            for what, expected in sums.items():
                _compare(folder / f"{name}.{what}", expected)
        return {name: _split(folder, name, said, cut, masking) for name, said in meta["splits"].items()}
    except (OSError, ValueError, KeyError) as error:
        log.warning("the packed text %s is damaged (%s) and is made anew", folder, error)
        return None


def _compare(path: Path, expected: str) -> None:
    stat = path.stat()
    stamp = (str(path), stat.st_size, stat.st_mtime_ns)
    if stamp in _SOUND:
        return
    if files.checksum(path) != expected:
        raise ValueError(f"{path.name} is not what was written")
    _SOUND.add(stamp)


def _split(folder: Path, name: str, said: Mapping[str, int], cut: Cut, masking: Asking) -> Packed:
    rows = said["sequences"]
    tokens: Any = np.memmap(folder / f"{name}.{TOKENS}", dtype=cut.dtype, mode="r", shape=(rows, cut.length))
    lengths = np.fromfile(folder / f"{name}.lengths", dtype=np.int32).astype(np.int64)
    counts = np.fromfile(folder / f"{name}.{COUNTS}", dtype=np.int64)
    if len(lengths) != rows or len(counts) != cut.entries:
        raise ValueError(f"{name} has other sizes than meta.json says")
    return Packed(tokens, lengths, counts, masking, cut.pad, said["documents"])
