"""Names and scores of hidden tokens, without torch: shared by the task that hides them and the head that guesses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

TOKENS, PLACES = "tokens", "places"
"""Labels of a batch: hidden ids (B, M) and their positions (B, M)."""
COUNTS = "counts"
"""Of a whole split: how often each id stands in it, (V,)."""
NOTHING = -100
"""Id of a place where nothing is hidden; such places come last."""


def hidden_only(values: Any, hidden: Any) -> np.ndarray:
    """Return what was kept at hidden tokens, one after another.

    Args:
        values: by sequence, (M,) or fewer.
        hidden: (n, M) ids, :data:`NOTHING` in places that are not used.
    """
    hidden = np.asarray(hidden)
    if isinstance(values, np.ndarray) and values.shape == hidden.shape:
        return values[hidden != NOTHING]
    counts = (hidden != NOTHING).sum(1)
    return np.concatenate([np.asarray(row)[:count] for row, count in zip(values, counts, strict=True)])


def scores(predictions: Mapping[str, Any], targets: Mapping[str, Any], name: str = "mlm_loss") -> dict[str, float]:
    """Return ``accuracy`` at hidden tokens, the loss (nats a token), ``perplexity`` and ``log_likelihood``.

    Args:
        predictions: ``token`` and ``loss`` at each place.
        targets: :data:`TOKENS` of the split.
        name: of the loss.
    """
    hidden = np.asarray(targets[TOKENS])
    loss = float(np.mean(hidden_only(predictions["loss"], hidden), dtype=np.float64))
    right = hidden_only(predictions["token"], hidden) == hidden_only(hidden, hidden)
    return {
        "accuracy": float(np.mean(right)),
        name: loss,
        "perplexity": float(np.exp(min(loss, 700.0))),
        "log_likelihood": -loss,
    }
