"""Saved models as everybody loads them: transformers alone, nothing of kdexp's in between."""

from __future__ import annotations

from pathlib import Path

import transformers
from torch import nn

from kdexp.heads.base import Head


def load(folder: Path, head: Head) -> nn.Module:
    """Return the model of a folder, float32, on the CPU, in evaluation.

    Args:
        folder: config.json and safetensors.
        head: says of which class it is.

    Raises:
        ValueError: the folder's weights are not those of such a model.
    """
    kind = getattr(transformers, head.auto_class)
    model, told = kind.from_pretrained(
        folder, output_loading_info=True, local_files_only=True, trust_remote_code=False, use_safetensors=True,
        dtype="float32",
    )  # fmt: skip
    wrong = {name: sorted(told[name]) for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if told[name]}
    if wrong:
        said = "; ".join(f"{name.replace('_', ' ')}: {', '.join(map(str, keys[:3]))}" for name, keys in wrong.items())
        raise ValueError(f"{folder} does not hold the weights of a {head.auto_class}: {said}")
    loaded: nn.Module = model.eval()
    return loaded
