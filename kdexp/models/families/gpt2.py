"""GPT-2: decoders, which read from left to right; their language head is their word embedding.

Transformers lists the last block's output as it is after the normalisation that follows all blocks.
"""

from __future__ import annotations

from kdexp.models.families.base import Family

FAMILY = Family(
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
    intermediate_size="n_inner",
)
