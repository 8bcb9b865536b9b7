"""Parameter counts from sizes alone, before any model is built."""

from __future__ import annotations


def bert_parameter_count(
    layers: int,
    hidden: int,
    ffn: int,
    vocab: int,
    positions: int = 512,
    types: int = 2,
    pooler: bool = True,
    num_labels: int = 0,
) -> int:
    """Parameters of a BERT encoder.

    Embeddings (vocab + positions + types)*h + 2h; each layer 4(h*h + h) + (h*f + f) + (f*h + h) + 4h; pooler
    h*h + h; classifier num_labels*(h + 1).

    Args:
        layers: layers that own parameters (shared ones count once).
        num_labels: outputs of the classifier, 0 = none.
    """
    embeddings = (vocab + positions + types) * hidden + 2 * hidden
    layer = 4 * (hidden * hidden + hidden) + (hidden * ffn + ffn) + (ffn * hidden + hidden) + 4 * hidden
    top = (hidden * hidden + hidden if pooler else 0) + num_labels * (hidden + 1)
    return embeddings + layers * layer + top
