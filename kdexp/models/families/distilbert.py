"""DistilBERT: other names for what BERT's blocks have, no pooler."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdexp.models.families.base import Block, Family


class TransformerBlock(Block):
    """The norms stand in the block itself."""

    def finish(self, block: Any, context_BND: Tensor, hidden_BND: Tensor) -> Tensor:
        """See :meth:`Block.finish`."""
        attended = block.sa_layer_norm(block.attention.out_lin(context_BND) + hidden_BND)
        output: Tensor = block.output_layer_norm(block.ffn(attended) + attended)
        return output


FAMILY = Family(
    language_head="vocab_",
    stops=True,
    block=TransformerBlock("attention", ("q_lin", "k_lin", "v_lin")),
    first_token=True,
    intermediate_size="hidden_dim",
)
