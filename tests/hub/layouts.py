"""Which weights real checkpoints hold: their names as the files have them, and their shapes by size.

Written from published files, not taken from a model in memory, so that a test can tell when the two part ways. The
counts that the files are known to have are checked in ``test_checkpoints.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """What decides the shapes.

    Attributes:
        layers: encoder blocks.
        width: hidden size.
        heads: attention heads.
        inner: width of the feed-forward layers.
        vocab: rows of the embedding table.
        positions: rows of the position table.
    """

    layers: int
    width: int
    heads: int
    inner: int
    vocab: int
    positions: int

    def reduced(self, vocab: int, positions: int | None = None) -> Sizes:
        """Return the same depth and heads with four numbers a head, and another vocabulary."""
        width = 4 * self.heads
        inner = self.inner * width // self.width
        return replace(self, width=width, inner=inner, vocab=vocab, positions=positions or self.positions)


def dense(name: str, out: int, into: int, bias: bool = True) -> Shapes:
    """A linear layer."""
    return {f"{name}.weight": (out, into), **({f"{name}.bias": (out,)} if bias else {})}


def norm(name: str, width: int, old: bool = False) -> Shapes:
    """A layer norm; ``old``: named as TensorFlow named them."""
    gain, shift = ("gamma", "beta") if old else ("weight", "bias")
    return {f"{name}.{gain}": (width,), f"{name}.{shift}": (width,)}


def bert(prefix: str, s: Sizes, types: int = 2, old: bool = False, pooler: bool = True, ids: bool = False) -> Shapes:
    """The backbone of BERT, RoBERTa and ELECTRA.

    Args:
        prefix: before each name, such as ``bert.``.
        s: the sizes.
        types: rows of the table of segments.
        old: layer norms are called gamma and beta.
        pooler: the dense layer on the first token is there.
        ids: the numbers of the positions are kept as a weight.
    """
    d = s.width
    shapes: Shapes = {"embeddings.position_ids": (1, s.positions)} if ids else {}
    for table, rows in (("word", s.vocab), ("position", s.positions), ("token_type", types)):
        shapes[f"embeddings.{table}_embeddings.weight"] = (rows, d)
    shapes |= norm("embeddings.LayerNorm", d, old)
    for layer in (f"encoder.layer.{i}" for i in range(s.layers)):
        for part in ("query", "key", "value"):
            shapes |= dense(f"{layer}.attention.self.{part}", d, d)
        shapes |= dense(f"{layer}.attention.output.dense", d, d) | norm(f"{layer}.attention.output.LayerNorm", d, old)
        shapes |= dense(f"{layer}.intermediate.dense", s.inner, d)
        shapes |= dense(f"{layer}.output.dense", d, s.inner) | norm(f"{layer}.output.LayerNorm", d, old)
    if pooler:
        shapes |= dense("pooler.dense", d, d)
    return {prefix + name: shape for name, shape in shapes.items()}


def bert_heads(s: Sizes, old: bool = False) -> Shapes:
    """What BERT was trained with: masked words and the next sentence; the decoder is tied and not in the file."""
    shapes = {"cls.predictions.bias": (s.vocab,)} | dense("cls.predictions.transform.dense", s.width, s.width)
    shapes |= norm("cls.predictions.transform.LayerNorm", s.width, old)
    return shapes | dense("cls.seq_relationship", 2, s.width)


def roberta_head(s: Sizes) -> Shapes:
    """What RoBERTa was trained with; the decoder is tied and not in the file."""
    return {"lm_head.bias": (s.vocab,)} | dense("lm_head.dense", s.width, s.width) | norm("lm_head.layer_norm", s.width)


def electra_extras(s: Sizes) -> Shapes:
    """ELECTRA's discriminator, and a projection that a model of equal widths does not use."""
    shapes = dense("electra.embeddings_project", s.width, s.width)
    shapes |= dense("discriminator_predictions.dense", s.width, s.width)
    return shapes | dense("discriminator_predictions.dense_prediction", 1, s.width)


def deberta(s: Sizes, tables: tuple[str, ...] = ("position_embeddings.weight",)) -> Shapes:
    """DeBERTa-v3 as pretrained: its backbone, two heads, and tables that nothing reads.

    Args:
        s: the sizes.
        tables: unread tables below the embeddings; the small ones have a second set, called ``_weight``.
    """
    d = s.width
    shapes: Shapes = {"embeddings.word_embeddings.weight": (s.vocab, d)} | norm("embeddings.LayerNorm", d)
    for table in tables:
        shapes[f"embeddings.{table}"] = (s.vocab if table.startswith("word") else s.positions, d)
    for layer in (f"encoder.layer.{i}" for i in range(s.layers)):
        for part in ("query_proj", "key_proj", "value_proj"):
            shapes |= dense(f"{layer}.attention.self.{part}", d, d)
        shapes |= dense(f"{layer}.attention.output.dense", d, d) | norm(f"{layer}.attention.output.LayerNorm", d)
        shapes |= dense(f"{layer}.intermediate.dense", s.inner, d)
        shapes |= dense(f"{layer}.output.dense", d, s.inner) | norm(f"{layer}.output.LayerNorm", d)
    shapes |= {"encoder.rel_embeddings.weight": (512, d)} | norm("encoder.LayerNorm", d)
    shapes = {f"deberta.{name}": shape for name, shape in shapes.items()}
    shapes |= {"lm_predictions.lm_head.bias": (s.vocab,)} | dense("lm_predictions.lm_head.dense", d, d)
    shapes |= norm("lm_predictions.lm_head.LayerNorm", d)
    shapes |= dense("mask_predictions.dense", d, d) | norm("mask_predictions.LayerNorm", d)
    return shapes | dense("mask_predictions.classifier", 1, d)


def modernbert(s: Sizes) -> Shapes:
    """ModernBERT with its head: no biases but the decoder's, no norm before the first attention, decoder tied."""
    d = s.width
    shapes: Shapes = {"model.embeddings.tok_embeddings.weight": (s.vocab, d), "model.embeddings.norm.weight": (d,)}
    for i in range(s.layers):
        layer = f"model.layers.{i}"
        if i:
            shapes[f"{layer}.attn_norm.weight"] = (d,)
        shapes |= {f"{layer}.attn.Wqkv.weight": (3 * d, d), f"{layer}.attn.Wo.weight": (d, d)}
        shapes |= {f"{layer}.mlp_norm.weight": (d,), f"{layer}.mlp.Wi.weight": (2 * s.inner, d)}
        shapes[f"{layer}.mlp.Wo.weight"] = (d, s.inner)
    shapes["model.final_norm.weight"] = (d,)
    return shapes | {"head.dense.weight": (d, d), "head.norm.weight": (d,), "decoder.bias": (s.vocab,)}


def distilbert(s: Sizes) -> Shapes:
    """DistilBERT's backbone, with its prefix."""
    d = s.width
    shapes: Shapes = {"embeddings.word_embeddings.weight": (s.vocab, d)}
    shapes |= {"embeddings.position_embeddings.weight": (s.positions, d)} | norm("embeddings.LayerNorm", d)
    for layer in (f"transformer.layer.{i}" for i in range(s.layers)):
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= dense(f"{layer}.attention.{part}", d, d)
        shapes |= norm(f"{layer}.sa_layer_norm", d) | dense(f"{layer}.ffn.lin1", s.inner, d)
        shapes |= dense(f"{layer}.ffn.lin2", d, s.inner) | norm(f"{layer}.output_layer_norm", d)
    return {f"distilbert.{name}": shape for name, shape in shapes.items()}


def gpt2(s: Sizes) -> Shapes:
    """GPT-2: no prefix, weights the other way round ([in, out]), and the mask kept as a weight in each layer."""
    d = s.width
    shapes: Shapes = {"wte.weight": (s.vocab, d), "wpe.weight": (s.positions, d)}
    for block in (f"h.{i}" for i in range(s.layers)):
        shapes |= norm(f"{block}.ln_1", d) | norm(f"{block}.ln_2", d)
        shapes[f"{block}.attn.bias"] = (1, 1, s.positions, s.positions)
        for name, into, out in (
            ("attn.c_attn", d, 3 * d), ("attn.c_proj", d, d), ("mlp.c_fc", d, s.inner), ("mlp.c_proj", s.inner, d),
        ):  # fmt: skip
            shapes |= {f"{block}.{name}.weight": (into, out), f"{block}.{name}.bias": (out,)}
    return shapes | norm("ln_f", d)


def vit(prefix: str, s: Sizes, pooler: bool) -> Shapes:
    """A vision transformer on patches of 16 x 16 pixels in three colours."""
    d = s.width
    shapes: Shapes = {"embeddings.cls_token": (1, 1, d), "embeddings.position_embeddings": (1, s.positions, d)}
    shapes |= {"embeddings.patch_embeddings.projection.weight": (d, 3, 16, 16)}
    shapes |= {"embeddings.patch_embeddings.projection.bias": (d,)}
    for layer in (f"encoder.layer.{i}" for i in range(s.layers)):
        for part in ("query", "key", "value"):
            shapes |= dense(f"{layer}.attention.attention.{part}", d, d)
        shapes |= dense(f"{layer}.attention.output.dense", d, d) | dense(f"{layer}.intermediate.dense", s.inner, d)
        shapes |= dense(f"{layer}.output.dense", d, s.inner)
        shapes |= norm(f"{layer}.layernorm_before", d) | norm(f"{layer}.layernorm_after", d)
    shapes |= norm("layernorm", d) | (dense("pooler.dense", d, d) if pooler else {})
    return {prefix + name: shape for name, shape in shapes.items()}
