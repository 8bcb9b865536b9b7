"""GPT-2: decoders, which read from left to right; their language head is their word embedding.

Transformers lists the last block's output as it is after the normalisation that follows all blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdexp.models.families.base import Family


@dataclass(frozen=True)
class Decoders(Family):
    """The feed-forward network has a name of its own for its width, and four times the model's where none is said."""

    def resize(self, config: Any, sizes: dict[str, int | None]) -> None:
        """See :meth:`Family.resize`."""
        super().resize(config, {key: value for key, value in sizes.items() if key != "intermediate_size"})
        if sizes.get("intermediate_size") is not None:
            config.n_inner = sizes["intermediate_size"]


FAMILY = Decoders(
    blocks=("h",),
    fused="attn.c_attn.",
    fused_along=-1,
    head="score",
    language_head="",
    causal=True,
    stops=True,
    hidden_size="n_embd",
    num_layers="n_layer",
    num_heads="n_head",
)
