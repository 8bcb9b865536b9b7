"""Text encoders that answer with one vector a text: pooled, mapped to another width if asked, of length 1 if asked.

Transformers has no class for them; this one stands beside its Auto classes. A saved folder is read by
``AutoModel.from_pretrained`` as well, which takes the encoder and leaves the map.

Legend: B examples, L padded length, D width.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.heads.common import mean_pool

MAP = "dense"
"""Name of the linear map to another width, where there is one."""


class Embedded(NamedTuple):
    """What an embedder returns.

    Attributes:
        embedding: (B, D).
        hidden_states: (B, L, D) of each layer, from the embedding output on, if they were asked for.
    """

    embedding: Tensor
    hidden_states: tuple[Tensor, ...] | None


class AutoEmbedder:
    """Makes embedders, as transformers' Auto classes make other models."""

    @staticmethod
    def from_config(config: Any, **options: Any) -> nn.Module:
        """Make one with random weights.

        Args:
            config: of an encoder, with ``embedding_pool`` (``mean`` or ``cls``), ``embedding_normalize`` and, for a map
                to another width, ``embedding_out``.
        """
        return _of(config)._from_config(config, **options)  # type: ignore[no-any-return]

    @staticmethod
    def from_pretrained(folder: Any, embedding_pool: str, embedding_normalize: bool, **options: Any) -> Any:
        """Load an encoder, which need not have been saved as an embedder."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        config.embedding_pool, config.embedding_normalize = embedding_pool, embedding_normalize
        return _of(config).from_pretrained(folder, config=config, **options)


def _of(config: Any) -> Any:
    """Return the class of embedders of a configuration's kind."""
    kind: Any = type(config)
    return _embedder(kind)


@cache
def _embedder(kind: Any) -> Any:
    """Make that class, once."""
    from transformers import MODEL_MAPPING, PreTrainedModel

    encoder: Any = MODEL_MAPPING[kind]
    family: Any = next(one for one in encoder.__mro__[1:] if issubclass(one, PreTrainedModel))

    class Embedder(family):  # type: ignore[misc]
        """An encoder, pooled."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            setattr(self, self.base_model_prefix, encoder(config))
            out = getattr(config, "embedding_out", None)
            if out is not None and out != config.hidden_size:
                self.dense = nn.Linear(config.hidden_size, out)
            self.post_init()

        def forward(self, input_ids: Tensor, attention_mask: Tensor, **inputs: Any) -> Embedded:
            """Return the vectors of some texts."""
            output = self.base_model(input_ids=input_ids, attention_mask=attention_mask, **inputs)
            hidden = output.last_hidden_state
            vector = hidden[:, 0] if self.config.embedding_pool == "cls" else mean_pool(hidden, attention_mask)
            if hasattr(self, MAP):
                vector = self.dense(vector)
            if self.config.embedding_normalize:
                vector = F.normalize(vector.float(), dim=-1)
            return Embedded(vector, output.hidden_states)

    Embedder.__name__ = Embedder.__qualname__ = f"{encoder.__name__.removesuffix('Model')}ForEmbedding"
    return Embedder
