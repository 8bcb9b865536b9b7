"""Which checkpoints there are: every source that kdexp ships or names, and classifiers in older forms.

What is known from published files decides: file names, names of weights, configurations, forms of tokenizers. What
could not be looked up is marked "from memory". No weight is real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.hub import configurations as conf
from tests.hub import layouts, vocabularies
from tests.hub.layouts import Shapes, Sizes
from tests.hub.vocabularies import Vocabulary

OTHERS = ("tf_model.h5", "flax_model.msgpack", "rust_model.ot")
"""Weights for other libraries. They lie beside the real ones and nothing may fetch them."""

UNCASED = {"do_lower_case": True, "model_max_length": 512}
SPECIAL = {f"{name.lower()}_token": f"[{name}]" for name in ("UNK", "SEP", "PAD", "CLS", "MASK")}


@dataclass(frozen=True)
class Checkpoint:
    """One repository of the hub.

    Attributes:
        repository: its id.
        sizes: the real ones.
        config: makes ``config.json``.
        weights: names and shapes in the weights file.
        vocabulary: makes the tokenizer's entries; None for images.
        tokenizer: content of ``tokenizer_config.json``; None = there is no such file, or the vocabulary brings it.
        special: content of ``special_tokens_map.json``; None = there is no such file.
        fast: ``tokenizer.json`` is there.
        slow: the older files of the tokenizer are there.
        safe: ``model.safetensors`` is there.
        pickled: ``pytorch_model.bin`` is there.
        in_pickle: weights that only the pickled file has.
        half: the weights are float16.
        converted: the hub's robot offers ``model.safetensors`` in a pull request.
        positions: of a reduced model, where the real table would be large.
        others: further file -> content.
        neglected: names of files for other libraries.
    """

    repository: str
    sizes: Sizes
    config: Callable[[Sizes, dict[str, int]], dict[str, Any]]
    weights: Callable[[Sizes], Shapes]
    vocabulary: Callable[[int | None], Vocabulary] | None = vocabularies.wordpiece
    tokenizer: dict[str, Any] | None = None
    special: dict[str, Any] | None = None
    fast: bool = True
    slow: bool = True
    safe: bool = True
    pickled: bool = True
    in_pickle: Callable[[Sizes], Shapes] | None = None
    half: bool = False
    converted: bool = False
    positions: int | None = None
    others: dict[str, Any] | None = None
    neglected: tuple[str, ...] = OTHERS


def _bert_old(s: Sizes) -> Shapes:
    return layouts.bert("bert.", s, old=True) | layouts.bert_heads(s, old=True)


def _bert_new(s: Sizes) -> Shapes:
    return layouts.bert("bert.", s) | layouts.bert_heads(s)


def _roberta(s: Sizes) -> Shapes:
    return layouts.bert("roberta.", s, types=1, pooler=False, ids=True) | layouts.roberta_head(s)


def _distilroberta(s: Sizes) -> Shapes:
    return layouts.bert("roberta.", s, types=1, ids=True) | layouts.roberta_head(s)


def _electra(s: Sizes) -> Shapes:
    return layouts.bert("electra.", s, pooler=False) | layouts.electra_extras(s)


def _deberta_small(s: Sizes) -> Shapes:
    unread = ("word_embeddings._weight", "position_embeddings._weight", "position_embeddings.weight")
    return layouts.deberta(s, unread)


def _roberta_classifier(s: Sizes) -> Shapes:
    shapes = layouts.bert("roberta.", s, types=1, ids=True) | layouts.dense("classifier.dense", s.width, s.width)
    return shapes | layouts.dense("classifier.out_proj", 3, s.width)


def _distilbert_pretrained(s: Sizes) -> Shapes:
    shapes = layouts.distilbert(s) | layouts.dense("vocab_transform", s.width, s.width)
    return shapes | layouts.norm("vocab_layer_norm", s.width) | {"vocab_projector.bias": (s.vocab,)}


def _distilbert_classifier(s: Sizes) -> Shapes:
    shapes = layouts.distilbert(s) | layouts.dense("pre_classifier", s.width, s.width)
    return shapes | layouts.dense("classifier", 2, s.width)


def _decoder(name: str) -> Callable[[Sizes], Shapes]:
    """The tied decoder, which pickled files hold a second time."""
    return lambda s: {name: (s.vocab, s.width)}


def _miniature(layers: int, width: int) -> Checkpoint:
    heads = width // 64
    return Checkpoint(
        repository=f"google/bert_uncased_L-{layers}_H-{width}_A-{heads}",
        sizes=Sizes(layers, width, heads, 4 * width, 30522, 512),
        config=conf.miniature,
        weights=_bert_new,  # seen for L-2_H-128; the others from memory
        fast=False,
        neglected=(),
    )


_BERT = Sizes(12, 768, 12, 3072, 30522, 512)
_ROBERTA = Sizes(12, 768, 12, 3072, 50265, 514)
_ROBERTA_LARGE = Sizes(24, 1024, 16, 4096, 50265, 514)
_MINILM = Sizes(6, 384, 12, 1536, 30522, 512)
_VIT = Sizes(12, 768, 12, 3072, 0, 197)
_IMAGES = {
    "preprocessor_config.json": {
        "do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 224,
    }
}  # fmt: skip
_EMBEDDER = {
    "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}],
    "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
    "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
}


def _bert_like(repository: str, sizes: Sizes) -> Checkpoint:
    decoder = _decoder("cls.predictions.decoder.weight")
    return Checkpoint(repository, sizes, conf.bert, _bert_old, tokenizer=UNCASED, in_pickle=decoder)


def _roberta_like(repository: str, sizes: Sizes, weights: Callable[[Sizes], Shapes] = _roberta) -> Checkpoint:
    return Checkpoint(
        repository, sizes, conf.roberta, weights, vocabularies.roberta, tokenizer={"model_max_length": 512},
        in_pickle=_decoder("lm_head.decoder.weight"), others={"dict.txt": "1 1\n"},
    )  # fmt: skip


def _deberta_like(repository: str, sizes: Sizes, weights: Callable[[Sizes], Shapes]) -> Checkpoint:
    return Checkpoint(
        repository, sizes, conf.deberta, weights, vocabularies.sentencepiece,
        tokenizer={"do_lower_case": False, "vocab_type": "spm"}, fast=False, safe=False, half=True, converted=True,
        neglected=("tf_model.h5", "rust_model.ot", "pytorch_model.generator.bin"),
    )  # fmt: skip


def _minilm(repository: str, config: Callable[[Sizes, dict[str, int]], dict[str, Any]], **more: Any) -> Checkpoint:
    tokenizer = {**UNCASED, **SPECIAL, "tokenizer_class": "BertTokenizer", "tokenize_chinese_chars": True}
    tokenizer |= {"strip_accents": None, "do_basic_tokenize": True, "never_split": None}
    return Checkpoint(repository, _MINILM, config, special=SPECIAL, tokenizer=tokenizer, neglected=(), **more)


CATALOGUE = {
    "bert_base": _bert_like("google-bert/bert-base-uncased", _BERT),
    "bert_large": _bert_like("google-bert/bert-large-uncased", Sizes(24, 1024, 16, 4096, 30522, 512)),
    "roberta_base": _roberta_like("FacebookAI/roberta-base", _ROBERTA),
    "roberta_large": _roberta_like("FacebookAI/roberta-large", _ROBERTA_LARGE),
    "distilroberta": _roberta_like(
        "distilbert/distilroberta-base", Sizes(6, 768, 12, 3072, 50265, 514), _distilroberta
    ),
    "electra": Checkpoint(  # that model.safetensors is absent: from memory
        "google/electra-base-discriminator", _BERT, conf.electra, _electra, tokenizer=UNCASED, safe=False
    ),
    "deberta_v3_base": _deberta_like(
        "microsoft/deberta-v3-base", Sizes(12, 768, 12, 3072, 128100, 512), layouts.deberta
    ),
    "deberta_v3_xsmall": _deberta_like(
        "microsoft/deberta-v3-xsmall", Sizes(12, 384, 6, 1536, 128100, 512), _deberta_small
    ),
    "modernbert": Checkpoint(
        "answerdotai/ModernBERT-base", Sizes(22, 768, 12, 1152, 50368, 8192), conf.modernbert, layouts.modernbert,
        vocabularies.modernbert, special=SPECIAL, neglected=("onnx/model.onnx",),
    ),
    "minilm": _minilm(
        "sentence-transformers/all-MiniLM-L6-v2", conf.minilm, pickled=False, others=_EMBEDDER,
        weights=lambda s: layouts.bert("", s, ids=True),
    ),
    "minilm_l6_h384": _minilm(  # all of it from memory
        "nreimers/MiniLM-L6-H384-uncased", conf.minilm_origin, safe=False, weights=lambda s: layouts.bert("", s)
    ),
    "bert_l2_h128": _miniature(2, 128),
    "bert_l4_h256": _miniature(4, 256),
    "bert_l4_h512": _miniature(4, 512),
    "bert_l6_h768": _miniature(6, 768),
    "distilbert": Checkpoint(
        "distilbert/distilbert-base-uncased", Sizes(6, 768, 12, 3072, 30522, 512), conf.distilbert,
        _distilbert_pretrained, tokenizer=UNCASED, in_pickle=_decoder("vocab_projector.weight"),
    ),
    "gpt2": Checkpoint(
        "openai-community/gpt2", Sizes(12, 768, 12, 3072, 50257, 1024), conf.gpt2, layouts.gpt2, vocabularies.gpt2,
        tokenizer={"model_max_length": 1024}, positions=64,
        others={"generation_config.json": {"_from_model_config": True, "transformers_version": "4.26.0.dev0"}},
    ),
    "vit_in21k": Checkpoint(
        "google/vit-base-patch16-224-in21k", _VIT, conf.vit, lambda s: layouts.vit("", s, pooler=True), None,
        others=_IMAGES,
    ),
    "vit": Checkpoint(
        "google/vit-base-patch16-224", _VIT, conf.vit_classifier,
        lambda s: layouts.vit("vit.", s, pooler=False) | layouts.dense("classifier", 1000, s.width), None,
        others=_IMAGES,
    ),
    "bert_sst2": Checkpoint(
        "textattack/bert-base-uncased-SST-2", _BERT, conf.bert_classifier,
        lambda s: layouts.bert("bert.", s) | layouts.dense("classifier", 2, s.width),
        tokenizer=UNCASED, special=SPECIAL, fast=False, safe=False,
        neglected=("training_args.bin", "eval_results_sst-2.txt"),
    ),
    "distilbert_sst2": Checkpoint(
        "distilbert/distilbert-base-uncased-finetuned-sst-2-english", Sizes(6, 768, 12, 3072, 30522, 512),
        conf.distilbert_classifier, _distilbert_classifier, tokenizer=UNCASED, fast=False,
    ),
    "roberta_mnli": Checkpoint(
        "FacebookAI/roberta-large-mnli", _ROBERTA_LARGE, conf.roberta_classifier, _roberta_classifier,
        vocabularies.roberta, tokenizer={"model_max_length": 512},
    ),
}  # fmt: skip
"""The checkpoints by short name: kdexp's own where it ships one."""
