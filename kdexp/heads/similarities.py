"""How alike vectors are, without torch: shared by the task that judges vectors and the head that gives them."""

from __future__ import annotations

import numpy as np

LABEL = "label"
"""How alike people find two texts, (n,)."""
SCORE = "logits"
"""The cosine of the two texts of a pair, (n, 1): kept as the score of any task is, so that its statistics hold too."""
SIMILARITY, COSINE = "similarity", "cosine"
"""The cosines of a text and two others, (n, 2); its vector's cosine with the teacher's, (n,)."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (n, D) at length 1, in float64; a zero vector stays one."""
    wide = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(lengths > 0, lengths, 1)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine of each vector (n, D) with its counterpart, (n,)."""
    return np.einsum("nd,nd->n", unit(one), unit(other))


def beside(vectors: np.ndarray) -> np.ndarray:
    """Return how alike each text is to the one after it, and to the one half the split away, (n, 2).

    Neighbours are often of one document, the others of two, so that both near and far pairs are there.
    """
    return np.stack([cosines(vectors, np.roll(vectors, -step, axis=0)) for step in (1, len(vectors) // 2)], axis=1)
