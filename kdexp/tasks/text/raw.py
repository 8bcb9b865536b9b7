"""Raw text whose hidden tokens are asked for: masked language modelling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kdexp.common.registry import build
from kdexp.config.schema import Part
from kdexp.tasks.base import DataContext
from kdexp.tasks.text.masking import Masking, word_beginnings
from kdexp.tasks.text.packed import PackedText
from kdexp.tasks.text.packing import Cut

if TYPE_CHECKING:
    from kdexp.heads.base import Head


@dataclass
class RawText(PackedText):
    """Which tokens are hidden? Sequences of :class:`~kdexp.tasks.text.packed.PackedText`, read from both sides.

    Attributes:
        mask: share of a sequence's tokens that are hidden.
        masked, replaced: of the hidden ones, shares that become the mask token, and a random token.
        whole_words: hide whole words.
    """

    asked: ClassVar[str] = "hidden tokens"
    loss: ClassVar[str] = "mlm_loss"

    mask: Part = 0.15
    masked: Part = 0.8
    replaced: Part = 0.1
    whole_words: bool = False

    def _wrong(self) -> list[str]:
        wrong = []
        if self.masked + self.replaced > 1:
            wrong.append(
                f"task.masked={self.masked} and task.replaced={self.replaced} are shares of the hidden tokens: "
                "together at most 1"
            )
        if self.mask == 0:
            wrong.append("task.mask=0 hides nothing, so nothing is asked; use 0.15")
        return wrong

    def _asking(self, reader: Any, context: DataContext) -> Masking:
        """Return how a tokenizer's tokens are hidden.

        Raises:
            ValueError: it has no mask token, or does not tell where words begin.
        """
        if reader.mask_token_id is None:
            raise ValueError(
                f"task={self.name} hides tokens, but the tokenizer of {context.model} has no mask token: take a "
                "teacher that was pretrained by masked language modelling, or add mask_token to its tokenizer"
            )
        entries = context.vocab_size or len(reader)
        vocabulary = [""] * entries
        for entry, number in reader.get_vocab().items():
            if number < entries:
                vocabulary[number] = entry
        special = np.array([entry == "" for entry in vocabulary])
        special[[number for number in reader.all_special_ids if number < entries]] = True
        begins = word_beginnings(vocabulary) if self.whole_words else None
        if self.whole_words and begins is None:
            raise ValueError(
                f"task.whole_words=true: the entries of the tokenizer of {context.model} do not tell where words begin "
                "(##, Ġ and ▁ are known): use false"
            )
        return Masking(self.mask, self.masked, self.replaced, int(reader.mask_token_id), special, begins)

    def _cut(self, reader: Any, context: DataContext) -> Cut:
        """Return sequences between the tokenizer's own special tokens."""
        around = reader("")["input_ids"]
        before = tuple(around[:1]) if reader.cls_token_id in around[:1] else ()
        after = tuple(around[-1:]) if reader.sep_token_id in around[-1:] and len(around) > len(before) else ()
        return Cut(
            length=context.max_length,
            joined=self.documents == "joined",
            before=before,
            after=after,
            between=after[0] if after else None,
            pad=int(reader.pad_token_id),
            entries=context.vocab_size or len(reader),
        )

    @property
    def head(self) -> Head:
        """The hidden tokens."""
        return build({"_target_": "kdexp.heads.masked_lm.MaskedLM"})
