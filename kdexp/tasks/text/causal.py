"""Raw text whose next token is asked for: causal language modelling, perplexity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kdexp.common.registry import build
from kdexp.heads.hidden_tokens import NOTHING
from kdexp.tasks.base import DataContext
from kdexp.tasks.text.packed import PackedText
from kdexp.tasks.text.packing import Cut

if TYPE_CHECKING:
    from kdexp.heads.base import Head


class NextToken:
    """Asks of each token of a sequence, but the last one, which one follows; nothing is drawn, nothing replaced."""

    def hide(self, ids_BL: np.ndarray, real_BL: np.ndarray, seed: int, examples: np.ndarray) -> tuple[np.ndarray, ...]:
        """See :meth:`kdexp.tasks.text.packing.Asking.hide`."""
        rows, size = ids_BL.shape
        places = np.broadcast_to(np.arange(max(1, size - 1)), (rows, max(1, size - 1)))
        following = np.full(places.shape, NOTHING, dtype=np.int64)
        following[:, : size - 1] = np.where(real_BL[:, 1:], ids_BL[:, 1:], NOTHING)
        return ids_BL, places.copy(), following


@dataclass
class CausalText(PackedText):
    """Which token comes next? Sequences of :class:`~kdexp.tasks.text.packed.PackedText`, read from left to right.

    No special token stands around a sequence; one that ends a text stands between two.
    """

    asked: ClassVar[str] = "the next token"
    loss: ClassVar[str] = "clm_loss"
    pads: ClassVar[bool] = False

    def _asking(self, reader: Any, context: DataContext) -> NextToken:
        if reader.eos_token_id is None:
            raise ValueError(
                f"task={self.name} puts a token between two texts, but the tokenizer of {context.model} has none that "
                "ends a text: add eos_token to its tokenizer"
            )
        if context.max_length < 2:
            raise ValueError(f"recipe.max_length={context.max_length}: no token follows another one; use 128")
        return NextToken()

    def _cut(self, reader: Any, context: DataContext) -> Cut:
        end = int(reader.eos_token_id)
        pad = end if reader.pad_token_id is None else int(reader.pad_token_id)
        entries = context.vocab_size or len(reader)
        return Cut(context.max_length, self.documents == "joined", (), (), end, pad, entries)

    @property
    def head(self) -> Head:
        """The next token."""
        return build({"_target_": "kdexp.heads.causal_lm.CausalLM"})
