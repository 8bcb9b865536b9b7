"""TED's stage I on raw text: each filter learns to tell the tokens that are asked for.

Legend: B sequences, L positions, M places where something is asked, D width, V entries of the vocabulary.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.heads.base import LANGUAGE, Head
from kdexp.heads.hidden_tokens import COUNTS
from kdexp.objectives.base import Batch, Context
from kdexp.objectives.ted import TedFilters


class LanguageHead(nn.Module):
    """BERT's language head: dropout, dense layer, GELU, normalisation, and a decoder, which others may share.

    Args:
        width: of what it reads.
        dropout: before the dense layer.
        decoder: to the vocabulary.
    """

    def __init__(self, width: int, dropout: float, decoder: nn.Linear) -> None:
        super().__init__()
        self.dropout, self.dense, self.norm = nn.Dropout(dropout), nn.Linear(width, width), nn.LayerNorm(width)
        self.decoder = (decoder,)  # in a tuple, so that it is registered once

    def forward(self, filtered_BMD: Tensor) -> dict[str, Tensor]:
        """Return ``logits`` (B, M, V)."""
        return {"logits": self.decoder[0](self.norm(F.gelu(self.dense(self.dropout(filtered_BMD)))))}


class TextFilters(TedFilters):
    """Filters on layers of one frozen language model: mean over filters of the cross entropy of each one's own head.

    The decoder to the vocabulary is one for all filters of a model, for it alone is as large as a small model. Filters
    and heads are run at the places that are asked for, nowhere else.

    Args:
        output, nonlinear, dropout: as :class:`~kdexp.objectives.ted.TedFilters`.
    """

    asks: ClassVar[tuple[str, ...]] = ()

    def suits(self, head: Head) -> None:
        """Refuse a head that is no language model's."""
        if head.auto_class not in LANGUAGE:
            raise ValueError(f"filters of raw text need a language model's head, not {head.name}")

    def setup(self, context: Context) -> None:
        self.decoder = nn.Linear(self.output or context.student.hidden_size, len(context.targets[COUNTS]))
        super().setup(context)

    def small(self, context: Context, width: int) -> nn.Module:
        """Make the head of one filter."""
        return LanguageHead(width, self.dropout, self.decoder)

    def asked(self, hidden_BLD: Tensor, batch: Batch) -> Tensor:
        """Return the hidden states at the places that are asked for, (B, M, D)."""
        places_BM = self.head.places(batch)
        assert places_BM is not None
        return hidden_BLD.gather(1, places_BM[..., None].expand(-1, -1, hidden_BLD.shape[-1]))
