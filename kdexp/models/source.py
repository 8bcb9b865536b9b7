"""What a teacher's folder holds, read from its small files and the head of its weights; nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COUNTED_FROM_PADDING = {"roberta", "xlm-roberta", "camembert", "mpnet"}
"""Families whose first position is the one after the padding token's id."""


def positions(said: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model can read, by its config.json; None if nothing limits it, or nothing is said."""
    most = said.get("max_position_embeddings")
    if most is None or said.get("position_biased_input") is False:  # DeBERTa-v3 knows distances only
        return None
    taken = int(said.get("pad_token_id") or 0) + 1 if said.get("model_type") in COUNTED_FROM_PADDING else 0
    return int(most) - taken


def weights(folder: Path) -> set[str] | None:
    """Return the names of all weights in a folder's safetensors files; None if there are none."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return set(json.loads(index.read_text())["weight_map"])
    path = folder / "model.safetensors"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return set(json.loads(file.read(length))) - {"__metadata__"}


def no_weights(init: str, weight: str) -> str:
    """Return the sentence about a weight that shall be copied from a pretrained teacher and is not in its files."""
    what = "pooler" if "pooler." in weight else "head"
    return (
        f"init={init} with init.source=pretrained and init.{what}=true: the teacher's files have no {what} ({weight}), "
        f"so the student would copy random numbers: use init.{what}=false, or init.source=finetuned."
    )
