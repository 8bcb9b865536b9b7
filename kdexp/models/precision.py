"""Weights in the precision that matrix products use, cast once instead of in every forward pass."""

from __future__ import annotations

import torch
from torch import nn


def lower(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Cast the weights of a frozen model's matrix products, in place.

    What it computes under autocast stays as it is, to the bit. Autocast casts them at every call and remembers only
    those that have gradients. Left alone are weights that other modules read too (tied embeddings), and those that
    autocast uses in float32 (normalisation, embeddings).

    Args:
        model: it can only be run under autocast to ``dtype`` afterwards.
        dtype: None = nothing is cast.
    """
    from transformers.pytorch_utils import Conv1D

    if dtype is None:
        return
    products = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv1D)
    read_elsewhere = {
        id(weight)
        for module in model.modules()
        if not isinstance(module, products)
        for weight in module.parameters(recurse=False)
    }
    for module in model.modules():
        if isinstance(module, products):
            for weight in module.parameters(recurse=False):
                if id(weight) not in read_elsewhere and weight.is_floating_point() and weight.dtype != dtype:
                    weight.data = weight.data.to(dtype)
