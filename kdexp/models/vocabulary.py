"""While a model is trained, only the rows of its word embedding that the data use.

A row that no example names has no gradient: AdamW's moments of it stay zero, and each update only decays it. So the
optimiser, the clipping, the checkpoints and the best weights need not know it; its decay is one factor, applied when
the table is put together again. A run's data use a part of a vocabulary of 30,000 to 250,000 entries.

Legend: V entries of the vocabulary, U of them used, D width, B examples, L padded length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORTH = 0.8
"""A table of which a larger share is used stays whole."""


class UsedRows(nn.Module):
    """Stands in for a word embedding: looks ids up among the rows that are used.

    An id outside them is an IndexError, never another row.

    Args:
        table: the embedding (V, D), kept beside as it is; it is no parameter here.
        used: (U,) ids, ascending.
    """

    places: Tensor

    def __init__(self, table: nn.Embedding, used: Tensor) -> None:
        super().__init__()
        self.table, self.used = (table,), used  # in a tuple, so that it is not registered
        places = torch.full((table.num_embeddings,), -1, dtype=torch.long)
        places[used] = torch.arange(len(used))
        self.register_buffer("places", places.to(table.weight.device), persistent=False)
        self.padding_idx = None if table.padding_idx is None else int(places[table.padding_idx])
        self.weight = nn.Parameter(table.weight.detach()[used.to(table.weight.device)].clone())

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Return the rows of some ids, (B, L, D)."""
        return F.embedding(self.places[ids_BL], self.weight, self.padding_idx)

    @torch.no_grad()
    def whole(self, decay: float) -> nn.Embedding:
        """Return the table with the rows as they were trained, the others as updates without gradients leave them.

        Args:
            decay: product over the updates of 1 - rate * weight decay.
        """
        (table,) = self.table
        weight = table.weight.to(self.weight.device).mul_(decay)
        weight[self.used.to(weight.device)] = self.weight
        table.weight = nn.Parameter(weight)
        return table


def narrow(model: Any, used: np.ndarray) -> bool:
    """Let a model have the used rows of its word embedding only; returns whether it does now.

    It does not where too many are used, where the table is frozen, not a plain one, or shared with another part (a
    decoder reads all of its rows).

    Args:
        model: of transformers.
        used: ids that the data can hold.
    """
    table = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    if type(table) is not nn.Embedding or table.max_norm is not None or table.scale_grad_by_freq or table.sparse:
        return False
    holders = [name for name, p in model.named_parameters(remove_duplicate=False) if p is table.weight]
    padding = [] if table.padding_idx is None else [table.padding_idx]
    ids = torch.from_numpy(np.union1d(used, np.array(padding, dtype=np.int64)).astype(np.int64))
    if len(holders) != 1 or not table.weight.requires_grad or len(ids) > WORTH * table.num_embeddings:
        return False
    model.set_input_embeddings(UsedRows(table, ids))
    return True


def widen(model: Any, decay: float) -> None:
    """Give a model its whole word embedding back, if :func:`narrow` has taken it.

    Args:
        decay: of the rows that were not used, over all updates so far.
    """
    rows = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    if isinstance(rows, UsedRows):
        model.set_input_embeddings(rows.whole(decay))


def rows(model: Any) -> dict[str, int] | None:
    """Return how many rows are ``used`` of how many (``of``), for the result; None where the table is whole."""
    table = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    return {"used": len(table.used), "of": len(table.places)} if isinstance(table, UsedRows) else None
