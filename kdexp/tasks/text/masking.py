"""Hidden tokens: which ones, and what stands in their place; a pure function of a seed and of an example's number.

Nothing is drawn from a generator with a state: each number is a hash of (seed, example, position), so that an example
is hidden in the same way whatever stands beside it in a batch, and a resumed run sees the masks of an undisturbed one.

Legend: B sequences, L positions, M places where something may be hidden, V entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdexp.heads.hidden_tokens import NOTHING

STEP = np.uint64(0x9E3779B97F4A7C15)
ORDER, MANNER, INSTEAD = 1, 2, 3
"""Streams of numbers: which positions, in which manner, by which token."""


def _mixed(x: np.ndarray) -> np.ndarray:
    """Return splitmix64's hash of unsigned integers, element by element."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def noise(seed: int, examples: np.ndarray, length: int, stream: int) -> np.ndarray:
    """Return (B, L) uint64, uniformly spread: a pure function of the seed, the stream, the example and the position."""
    start = np.array([(seed * 4 + stream) % 2**64], dtype=np.uint64)
    rows = _mixed(_mixed(start) + examples.astype(np.uint64) * STEP)
    return _mixed(rows[:, None] + (np.arange(length, dtype=np.uint64) + np.uint64(1)) * STEP)


def share(numbers: np.ndarray) -> np.ndarray:
    """Return uint64 as floats in [0, 1)."""
    return (numbers >> np.uint64(11)).astype(np.float64) / 2.0**53


@dataclass(frozen=True)
class Masking:
    """How tokens are hidden.

    Of each sequence so many tokens are chosen: ``share`` of those that are not special, rounded, at least one. Of the
    chosen ones ``masked`` become the mask token, ``replaced`` a random ordinary one, the rest stay as they are.

    Attributes:
        share: of a sequence's ordinary tokens.
        masked, replaced: of the chosen ones.
        mask: id of the mask token.
        special: (V,) bool, ids that are never hidden and never put in.
        begins: (V,) bool, ids that begin a word: whole words are hidden; None = single tokens. Words are taken in a
            random order for as long as the next one fits, so that somewhat fewer tokens are hidden.
    """

    share: float
    masked: float
    replaced: float
    mask: int
    special: np.ndarray
    begins: np.ndarray | None = None

    def places(self, length: int) -> int:
        """Return M, the most places of a sequence of L positions at which something is hidden."""
        return max(1, round(self.share * length))

    def hide(self, ids_BL: np.ndarray, real_BL: np.ndarray, seed: int, examples: np.ndarray) -> tuple[np.ndarray, ...]:
        """Hide tokens of some sequences.

        Args:
            ids_BL: int64 ids.
            real_BL: bool, False = padding.
            seed: of what is drawn.
            examples: (B,) numbers of the sequences.

        Returns:
            The ids as a model sees them (B, L); the positions (B, M) at which something is hidden, those of a sequence
            first; the ids that stood there (B, M), :data:`NOTHING` in places that are not used.
        """
        size = ids_BL.shape[1]
        slots = min(self.places(size), size)
        may = real_BL & ~self.special[ids_BL]
        counts = np.minimum(np.maximum(1, np.rint(self.share * may.sum(1))), may.sum(1)).astype(np.int64)
        rank = noise(seed, examples, size, ORDER)
        order, ends = self._ordered(ids_BL, may, rank)
        places = order[:, :slots]
        used = np.take_along_axis(may, places, 1) & (ends[:, :slots] <= counts[:, None])
        lone = ~used.any(1, keepdims=True)  # a first word that is longer than all that may be hidden
        used |= lone & np.take_along_axis(may, places, 1) & (np.arange(slots) < counts[:, None])
        hidden = np.take_along_axis(ids_BL, places, 1)
        manner = share(np.take_along_axis(noise(seed, examples, size, MANNER), places, 1))
        ordinary = np.flatnonzero(~self.special)
        drawn = np.take_along_axis(noise(seed, examples, size, INSTEAD), places, 1) % np.uint64(len(ordinary))
        shown = np.where(manner < self.masked + self.replaced, ordinary[drawn.astype(np.int64)], hidden)
        shown = np.where(manner < self.masked, self.mask, shown)
        seen = ids_BL.copy()
        np.put_along_axis(seen, places, np.where(used, shown, hidden), 1)
        return seen, np.where(used, places, 0), np.where(used, hidden, NOTHING)

    def _ordered(self, ids_BL: np.ndarray, may: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all positions in the order in which they are taken, and how many are taken when each one's word is."""
        rows, size = ids_BL.shape
        at = np.broadcast_to(np.arange(size), (rows, size))
        starts = at
        if self.begins is not None:
            special = ~may
            new = self.begins[ids_BL] | special
            new[:, 1:] |= special[:, :-1]
            new[:, 0] = True
            starts = np.maximum.accumulate(np.where(new, at, 0), axis=1)
        last = np.uint64(2**64 - 1)
        order = np.argsort(np.where(may, np.take_along_axis(rank, starts, 1), last), axis=1, kind="stable")
        if self.begins is None:
            return order, at + 1
        words = np.take_along_axis(starts, order, 1)
        fresh = np.ones_like(may)
        fresh[:, 1:] = words[:, 1:] != words[:, :-1]
        lengths = np.zeros_like(ids_BL)
        np.add.at(lengths, (np.arange(rows)[:, None], starts), 1)
        first = np.maximum.accumulate(np.where(fresh, at, 0), axis=1)
        return order, first + np.take_along_axis(lengths, words, 1)


def word_beginnings(vocabulary: Sequence[str]) -> np.ndarray | None:
    """Tell which entries begin a word, by the signs of WordPiece, byte-level BPE and SentencePiece.

    Args:
        vocabulary: the entries in the order of their ids.

    Returns:
        (V,) bool; None where the entries bear no sign that tells.
    """
    entries = np.array(vocabulary, dtype=object)
    inside = np.array([entry.startswith("##") for entry in entries])
    if inside.any():
        return ~inside
    for sign in ("Ġ", "▁"):
        opening = np.array([entry.startswith(sign) for entry in entries])
        if opening.any():
            return opening
    return None
