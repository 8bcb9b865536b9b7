"""What several heads share: precision, checks of settings, a small head on the first token."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def wide(x: Tensor) -> Tensor:
    """Return ``x`` in at least float32: half and bfloat16 are promoted, float64 stays (checks run in it)."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def choice(name: str, value: object, allowed: tuple) -> None:
    """Refuse a setting that is not one of ``allowed``.

    Raises:
        ValueError: with the value and all allowed ones.
    """
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; choose one of {', '.join(map(str, allowed))}")


def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean of the real tokens' vectors, (B, L, D) to (B, D); a row without real tokens gives zeros."""
    mask = attention_mask.to(hidden.dtype)[..., None]
    return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)


class FirstToken(nn.Sequential):
    """BERT's way to an answer about a whole text: pooler on the first token, dropout, linear map.

    Args:
        width: of the hidden states.
        out: numbers an example.
        dropout: before the pooler and before the map.
    """

    def __init__(self, width: int, out: int, dropout: float) -> None:
        super().__init__(
            nn.Dropout(dropout), nn.Linear(width, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, out)
        )

    def forward(self, hidden_BLD: Tensor) -> dict[str, Tensor]:
        """Return ``logits`` (B, out) of hidden states (B, L, width)."""
        return {"logits": super().forward(hidden_BLD[:, 0])}
