"""The ``config.json`` of real checkpoints: their keys in their order, with what older versions of the library wrote.

Each function takes the sizes and the ids of the vocabulary's entries, which are the only things that a smaller
stand-in changes.
"""

from __future__ import annotations

from typing import Any

from tests.hub.layouts import Sizes

Ids = dict[str, int]
Config = dict[str, Any]


def _encoder(s: Sizes, ids: Ids, family: str, types: int, epsilon: float = 1e-12) -> Config:
    """What BERT, RoBERTa and ELECTRA say in common, in alphabetical order as the library writes it."""
    return {
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": s.width,
        "initializer_range": 0.02,
        "intermediate_size": s.inner,
        "layer_norm_eps": epsilon,
        "max_position_embeddings": s.positions,
        "model_type": family,
        "num_attention_heads": s.heads,
        "num_hidden_layers": s.layers,
        "pad_token_id": ids.get("[PAD]", ids.get("<pad>")),
        "type_vocab_size": types,
        "vocab_size": s.vocab,
    }


def _ordered(config: Config) -> Config:
    return dict(sorted(config.items()))


def bert(s: Sizes, ids: Ids) -> Config:
    """google-bert/bert-base-uncased and -large-uncased: no dtype, no labels."""
    more = {"architectures": ["BertForMaskedLM"], "gradient_checkpointing": False, "use_cache": True}
    more |= {"position_embedding_type": "absolute", "transformers_version": "4.6.0.dev0"}
    return _ordered(_encoder(s, ids, "bert", 2) | more)


def miniature(s: Sizes, ids: Ids) -> Config:
    """google/bert_uncased_L-*_H-*: the bare sizes, no ``architectures``."""
    return _encoder(s, ids, "bert", 2)


def minilm(s: Sizes, ids: Ids) -> Config:
    """sentence-transformers/all-MiniLM-L6-v2."""
    return {
        "_name_or_path": "nreimers/MiniLM-L6-H384-uncased",
        **minilm_origin(s, ids),
        "transformers_version": "4.8.2",
    }


def minilm_origin(s: Sizes, ids: Ids) -> Config:
    """nreimers/MiniLM-L6-H384-uncased."""
    more = {"architectures": ["BertModel"], "gradient_checkpointing": False, "use_cache": True}
    return _ordered(_encoder(s, ids, "bert", 2) | more | {"position_embedding_type": "absolute"})


def bert_classifier(s: Sizes, ids: Ids) -> Config:
    """textattack/bert-base-uncased-SST-2, saved in 2020: a task's name, but neither labels nor how many there are."""
    more = {"architectures": ["BertForSequenceClassification"], "finetuning_task": "sst-2"}
    return _ordered(_encoder(s, ids, "bert", 2) | more | {"gradient_checkpointing": False})


def roberta(s: Sizes, ids: Ids) -> Config:
    """FacebookAI/roberta-base, -large and distilbert/distilroberta-base: positions begin at 2, one segment."""
    more = {"architectures": ["RobertaForMaskedLM"], "bos_token_id": ids["<s>"], "eos_token_id": ids["</s>"]}
    return _ordered(_encoder(s, ids, "roberta", 1, 1e-5) | more)


def roberta_classifier(s: Sizes, ids: Ids) -> Config:
    """FacebookAI/roberta-large-mnli: contradiction first, the number of labels under its old name."""
    names = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
    more = {"_num_labels": 3, "architectures": ["RobertaForSequenceClassification"]}
    more |= {"id2label": {str(i): name for i, name in enumerate(names)}}
    more |= {"label2id": {name: i for i, name in enumerate(names)}}
    return _ordered(roberta(s, ids) | more)


def electra(s: Sizes, ids: Ids) -> Config:
    """google/electra-base-discriminator: embeddings may have a width of their own."""
    more = {"architectures": ["ElectraForPreTraining"], "embedding_size": s.width, "summary_activation": "gelu"}
    more |= {"summary_last_dropout": 0.1, "summary_type": "first", "summary_use_proj": True}
    return _ordered(_encoder(s, ids, "electra", 2) | more)


def deberta(s: Sizes, ids: Ids) -> Config:
    """microsoft/deberta-v3-*: neither ``architectures`` nor a padding id nor a dtype; attention parts as one text."""
    return {
        "model_type": "deberta-v2",
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": s.width,
        "initializer_range": 0.02,
        "intermediate_size": s.inner,
        "max_position_embeddings": s.positions,
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "layer_norm_eps": 1e-7,
        "max_relative_positions": -1,
        "position_biased_input": False,
        "num_attention_heads": s.heads,
        "num_hidden_layers": s.layers,
        "type_vocab_size": 0,
        "vocab_size": s.vocab,
    }


def modernbert(s: Sizes, ids: Ids) -> Config:
    """answerdotai/ModernBERT-base, from before the library had ``layer_types`` and ``rope_parameters``."""
    return {
        "architectures": ["ModernBertForMaskedLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ids["[CLS]"],
        "classifier_activation": "gelu",
        "classifier_bias": False,
        "classifier_dropout": 0.0,
        "classifier_pooling": "mean",
        "cls_token_id": ids["[CLS]"],
        "decoder_bias": True,
        "deterministic_flash_attn": False,
        "embedding_dropout": 0.0,
        "eos_token_id": ids["[SEP]"],
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "gradient_checkpointing": False,
        "hidden_activation": "gelu",
        "hidden_size": s.width,
        "initializer_cutoff_factor": 2.0,
        "initializer_range": 0.02,
        "intermediate_size": s.inner,
        "layer_norm_eps": 1e-05,
        "local_attention": 128,
        "local_rope_theta": 10000.0,
        "max_position_embeddings": s.positions,
        "mlp_bias": False,
        "mlp_dropout": 0.0,
        "model_type": "modernbert",
        "norm_bias": False,
        "norm_eps": 1e-05,
        "num_attention_heads": s.heads,
        "num_hidden_layers": s.layers,
        "pad_token_id": ids["[PAD]"],
        "position_embedding_type": "absolute",
        "reference_compile": None,
        "sep_token_id": ids["[SEP]"],
        "sparse_pred_ignore_index": -100,
        "sparse_prediction": False,
        "torch_dtype": "float32",
        "transformers_version": "4.47.0.dev0",
        "vocab_size": s.vocab,
    }


def distilbert(s: Sizes, ids: Ids) -> Config:
    """distilbert/distilbert-base-uncased: names of sizes that no other family uses."""
    return {
        "activation": "gelu",
        "architectures": ["DistilBertForMaskedLM"],
        "attention_dropout": 0.1,
        "dim": s.width,
        "dropout": 0.1,
        "hidden_dim": s.inner,
        "initializer_range": 0.02,
        "max_position_embeddings": s.positions,
        "model_type": "distilbert",
        "n_heads": s.heads,
        "n_layers": s.layers,
        "pad_token_id": ids["[PAD]"],
        "qa_dropout": 0.1,
        "seq_classif_dropout": 0.2,
        "sinusoidal_pos_embds": False,
        "tie_weights_": True,
        "transformers_version": "4.10.0.dev0",
        "vocab_size": s.vocab,
    }


def distilbert_classifier(s: Sizes, ids: Ids) -> Config:
    """distilbert/distilbert-base-uncased-finetuned-sst-2-english."""
    more = {"architectures": ["DistilBertForSequenceClassification"], "finetuning_task": "sst-2", "output_past": True}
    more |= {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
    return _ordered(distilbert(s, ids) | more)


def gpt2(s: Sizes, ids: Ids) -> Config:
    """openai-community/gpt2: names of its own for all sizes, nothing to pad with."""
    end = ids["<|endoftext|>"]
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": end,
        "embd_pdrop": 0.1,
        "eos_token_id": end,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": s.positions,
        "n_embd": s.width,
        "n_head": s.heads,
        "n_layer": s.layers,
        "n_positions": s.positions,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": s.vocab,
    }


def vit(s: Sizes, ids: Ids) -> Config:
    """google/vit-base-patch16-224-in21k."""
    return {
        "architectures": ["ViTModel"],
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": s.width,
        "image_size": 224,
        "initializer_range": 0.02,
        "intermediate_size": s.inner,
        "layer_norm_eps": 1e-12,
        "model_type": "vit",
        "num_attention_heads": s.heads,
        "num_channels": 3,
        "num_hidden_layers": s.layers,
        "patch_size": 16,
        "qkv_bias": True,
        "transformers_version": "4.13.0.dev0",
    }


def vit_classifier(s: Sizes, ids: Ids) -> Config:
    """google/vit-base-patch16-224: a thousand labels, with the commas that ImageNet's names have."""
    names = ["tench, Tinca tinca", *(f"class {i}, of ImageNet" for i in range(1, 1000))]
    more = {"architectures": ["ViTForImageClassification"], "id2label": {str(i): name for i, name in enumerate(names)}}
    return _ordered(vit(s, ids) | more | {"label2id": {name: i for i, name in enumerate(names)}})
