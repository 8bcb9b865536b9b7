"""Splits of texts that become vectors: single texts, or pairs of which it is known how alike they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kdexp.heads.similarities import COSINE, LABEL, SCORE, SIMILARITY, beside, cosines
from kdexp.tasks.base import Batch, Predictions, Targets
from kdexp.tasks.text.encoding import Encoded, OfEncoded
from kdexp.tasks.text.rows import Rows

ROW = "row"
"""Name under which a text's number stands where nothing else is known of it."""


def apart(rows: Rows) -> Rows:
    """Return pairs of texts as single ones, the two of a pair after one another; single texts as they are."""
    if rows.second is None:
        return rows
    texts = [text for pair in zip(rows.first, rows.second, strict=True) for text in pair]
    return Rows(texts, None, np.repeat(rows.labels, 2))


@dataclass
class Texts(OfEncoded):
    """Texts, each read by itself; two after one another may be a pair.

    Attributes:
        encoded: the texts.
        pairs: they come in pairs, and the labels say how alike the two are.
        teacher: (items, D) the teacher's vectors of all of them, where they are known.
    """

    encoded: Encoded
    pairs: bool = False
    teacher: np.ndarray | None = None

    def taught(self, vectors: np.ndarray) -> Texts:
        """Return the split with the teacher's vectors, (items, D)."""
        return replace(self, teacher=vectors)

    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Batch:
        """See :meth:`Dataset.collate`; there are no labels."""
        return replace(self.encoded.collate(index, step_seed, width), labels={})

    @property
    def targets(self) -> Targets:
        """The number of each text."""
        return {ROW: np.arange(len(self))}

    @property
    def truths(self) -> Targets:
        """How alike the texts of each pair are, for people and, where its vectors are known, for the teacher."""
        known = {LABEL: self.encoded.labels[::2]} if self.pairs else {}
        if self.teacher is not None:
            return {**known, SIMILARITY: self._similarities(self.teacher).astype(np.float32)}
        return known or self.targets

    def gather(self, predictions: Predictions) -> Predictions:
        """Return how alike the texts are by their vectors, and how near these are to the teacher's, if known."""
        vectors = np.asarray(predictions["embedding"])
        alike = self._similarities(vectors)
        said = {SCORE: alike[:, None]} if self.pairs else {SIMILARITY: alike}
        if self.teacher is not None:
            said[COSINE] = self._of_example(cosines(vectors, self.teacher))
        return {name: values.astype(np.float32) for name, values in said.items()}

    def _similarities(self, vectors: np.ndarray) -> np.ndarray:
        return cosines(vectors[::2], vectors[1::2]) if self.pairs else beside(vectors)

    def _of_example(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, 2).mean(axis=1) if self.pairs else values

    @property
    def facts(self) -> dict[str, Any]:
        """How many texts were cut."""
        return self.encoded.facts
