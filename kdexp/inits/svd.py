"""Heads of fewer dimensions: each pair of maps inside a head by its best approximation of low rank (ours)."""

from __future__ import annotations

from typing import ClassVar

from kdexp.inits.cuts import keep_indices
from kdexp.inits.narrow import ScoredNarrow, Scores


class SVD(ScoredNarrow):
    """As ``importance``, with heads that may be smaller than the teacher's.

    A head's scores depend on the product of its query and key maps alone, what it hands on on the product of its
    value and output maps: each product is replaced by its best approximation of rank d'. With d' = d the function is
    unchanged.
    """

    shrinks_heads: ClassVar[bool] = True

    def hidden(self, scores: Scores, keep: int) -> list[int]:
        """Return the most important ones."""
        return keep_indices(scores.hidden, keep)
