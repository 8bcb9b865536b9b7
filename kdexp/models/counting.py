"""Parameters of a model, counted from what its config.json says: nothing is built, and no library is imported for it.

For families whose blocks are BERT's and heads of classes or a score; :func:`kdexp.models.build.count` builds the others
without memory. A test compares both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdexp.config.resolve import SIZES
from kdexp.heads.base import CLASSIFIER, Head

FAMILIES = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}
"""Values of ``model_type`` whose shapes are known here."""

UNUSUAL = ("is_decoder", "add_cross_attention", "pruned_heads")
"""Settings that add or remove weights; a model that has one is built."""


@dataclass(frozen=True)
class _Shape:
    """The sizes that decide how many parameters a model has."""

    layers: int
    width: int
    inner: int
    words: int
    positions: int
    types: int
    embedding: int
    classes: int

    def parameters(self) -> int:
        """Return how many parameters there are: embeddings, blocks, and a dense layer in front of the answer."""
        square = self.width * self.width + self.width
        embeddings = (self.words + self.positions + self.types + 2) * self.embedding
        if self.embedding != self.width:  # ELECTRA maps them to the blocks' width
            embeddings += self.embedding * self.width + self.width
        block = 4 * square + 2 * self.width * self.inner + self.inner + self.width + 4 * self.width
        return embeddings + self.layers * block + square + self.width * self.classes + self.classes


def count(said: Mapping[str, Any], head: Head, resized: Mapping[str, int | None] | None = None) -> int | None:
    """Return how many parameters a model has with a head; None if its shapes are not known here.

    Args:
        said: content of its config.json.
        head: what it answers.
        resized: ``num_layers``, ``hidden_size``, ``intermediate_size`` of a student of it; None = as it is.
    """
    family = said.get("model_type")
    if family not in FAMILIES or head.auto_class != CLASSIFIER or any(said.get(key) for key in UNUSUAL):
        return None
    sizes = {key: next((said[name] for name in names if name in said), None) for key, names in SIZES.items()}
    sizes |= {key: value for key, value in (resized or {}).items() if value is not None}
    width = sizes["hidden_size"]
    shape = (
        sizes["num_layers"], width, sizes["intermediate_size"], sizes["vocab_size"],
        said.get("max_position_embeddings"), said.get("type_vocab_size"),
        said.get("embedding_size") if family == "electra" else width, head.model_config().get("num_labels"),
    )  # fmt: skip
    known = [size for size in shape if isinstance(size, int)]
    if len(known) < len(shape):  # a default of the family, which its file does not say
        return None
    return _Shape(*known).parameters()
