"""Capture of features without hooks: an attention function of our own hands out what an objective asks for.

The function is registered with transformers under the name ``kdexp``. It calls PyTorch's fused attention and, for the
layers asked for, puts queries, keys and values into a dictionary that travels through the model's keyword arguments.
Nothing falls back to the slow attention, nothing is kept that nobody reads, and the whole forward pass compiles into
one graph. Scores are for the objective to compute, on matched layers only.

Legend: B sentences, L padded length, D width, H heads, d = D/H, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from kdexp.objectives.base import Features, Objective

ATTENTION = "kdexp"
PARTS = ("query", "key", "value")


def tapped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    taps: dict[str, Any] | None = None,
    exchange: bool = False,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention that records what ``taps`` wants.

    Layers are counted by calls, from 1, so a layer that is used twice counts twice.

    Args:
        module: the attention module (unused).
        query, key, value: (B, H, L, d).
        attention_mask: broadcastable to (B, H, L, L), or None.
        scaling: factor on the scores; None = 1/sqrt(d).
        dropout: probability.
        taps: ``{"want": names, "layer": calls so far, "got": features}`` or None.
        exchange: take queries for keys and keys for queries (:mod:`kdexp.models.sharing`).

    Returns:
        The context (B, L, H, d) and None (no attention weights are ever made).
    """
    query, key = (key, query) if exchange else (query, key)
    if taps is not None:
        taps["layer"] += 1
        for name, tensor in zip(PARTS, (query, key, value), strict=True):
            label = f"{name}.{taps['layer']}"
            if label in taps["want"]:
                taps["got"][label] = tensor
    context = F.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return context.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, tapped_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def wanted(objectives: Iterable[Objective], side: int) -> frozenset[str]:
    """Return the names of the features that objectives need of the student (side 0) or the teacher (side 1)."""
    return frozenset(f"{kind}.{pair[side]}" for o in objectives for kind in o.needs for pair in o.pairs)


def forward(model: nn.Module, batch: dict[str, Tensor], want: frozenset[str]) -> Features:
    """Run a model and return its logits and the features that are wanted.

    Args:
        model: a sequence classifier of transformers.
        batch: ``input_ids``, ``attention_mask`` (B, L), perhaps ``token_type_ids``; other entries are not passed on.
        want: feature names; see :mod:`kdexp.objectives.base`.

    Returns:
        ``logits`` and exactly the wanted features.
    """
    inputs: dict[str, Any] = {k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids") if k in batch}
    hidden = any(name.startswith("hidden.") for name in want)
    taps: dict[str, Any] = {"want": want, "layer": 0, "got": {}}
    if any(name.split(".")[0] in PARTS for name in want):
        inputs["taps"] = taps
    output = model(**inputs, output_hidden_states=hidden, return_dict=True)
    features: Features = {"logits": output.logits, **taps["got"]}
    if hidden:
        for name in want:
            if name.startswith("hidden."):
                features[name] = output.hidden_states[int(name.split(".")[1])]
    return features


def prepare(model: nn.Module) -> None:
    """Install transformers' capture of hidden states ahead of compilation (it takes a lock that cannot be traced)."""
    from transformers.utils.output_capturing import maybe_install_capturing_hooks

    base = getattr(model, str(model.base_model_prefix), model)
    maybe_install_capturing_hooks(base)


def check(features: Features, want: frozenset[str], who: str) -> None:
    """Make sure that everything wanted was captured.

    Raises:
        ValueError: an architecture whose attention does not pass through transformers' attention interface.
    """
    missing = sorted(want - set(features))
    if missing:
        raise ValueError(
            f"the {who} hands out no {', '.join(missing)}: its attention does not go through transformers' attention "
            "interface. Choose an objective on logits or hidden states, or set teacher.attention=false."
        )


@torch.no_grad()
def probe(model: nn.Module, batch: dict[str, Tensor], want: frozenset[str], who: str) -> None:
    """Run one tiny forward pass and check that all wanted features arrive."""
    training = model.training
    model.eval()
    tiny = {k: v[:2, :8] if v.ndim == 2 else v[:2] for k, v in batch.items()}
    check(forward(model, tiny, want), want, who)
    model.train(training)
