"""Toy models and data that several tests share."""

from __future__ import annotations

import numpy as np
import torch

from kdexp.heads.classification import Classification
from kdexp.models import capture
from kdexp.models.families.base import ATTENTION
from kdexp.tasks.text.encoding import Encoded

HEAD = Classification(["a", "b", "c"])


def network(layers: int, seed: int, dropout: float = 0.1, spread: float = 0.02) -> torch.nn.Module:
    from transformers import AutoModelForSequenceClassification, BertConfig

    torch.manual_seed(seed)
    config = BertConfig(
        num_hidden_layers=layers, hidden_size=16, num_attention_heads=2, intermediate_size=32, vocab_size=50,
        max_position_embeddings=32, problem_type="single_label_classification", num_labels=3,
        hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, initializer_range=spread,
    )  # fmt: skip
    capture.install()
    return AutoModelForSequenceClassification.from_config(config, attn_implementation=ATTENTION)


def examples(n: int = 30) -> Encoded:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 17, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = rng.integers(5, 50, offsets[-1]).astype(np.int32)
    return Encoded(tokens, np.zeros_like(tokens, dtype=np.int8), offsets, rng.integers(0, 3, n), 0, 0)
