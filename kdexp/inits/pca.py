"""The hidden dimensions that load most on the principal directions of hidden states (ours)."""

from __future__ import annotations

from kdexp.inits.cuts import keep_indices, pca_projector
from kdexp.inits.narrow import ScoredNarrow, Scores


class PCA(ScoredNarrow):
    """Keep the D' coordinates that load most on the first D' principal directions; heads and neurons by importance.

    A rotation by PCA itself does not commute with LayerNorm, so it only picks coordinates here: an approximation.
    """

    def hidden(self, scores: Scores, keep: int) -> list[int]:
        """Return the coordinates with the largest part in the projection."""
        assert scores.states is not None
        return keep_indices(pca_projector(scores.states, keep).diagonal(), keep)
