"""The most important hidden dimensions, heads and neurons (after Minitron, arXiv 2407.14679; third-party code)."""

from __future__ import annotations

from kdexp.inits.cuts import keep_indices
from kdexp.inits.narrow import ScoredNarrow, Scores


class Importance(ScoredNarrow):
    """Keep what is most active on training texts: mean |a| over a text's tokens, squared, summed over texts, root.

    Neurons by the input of the feed-forward output map, heads by the input of the attention output map, hidden
    dimensions by the outputs of all LayerNorms together. In a BERT these follow LayerNorm's scale for the most part.
    """

    def hidden(self, scores: Scores, keep: int) -> list[int]:
        """Return the most important ones."""
        return keep_indices(scores.hidden, keep)
