"""Where a teacher's weights are, what identifies them, and what its folder holds; no weights are loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from kdexp.common.files import checksum
from kdexp.config.resolve import source_folder
from kdexp.config.schema import Teacher
from kdexp.models import weights

KINDS = (".safetensors", ".json", ".txt", ".model")
"""Endings of the files that are what a teacher is: weights, configuration, tokenizer."""

COUNTED_FROM_PADDING = {"roberta", "xlm-roberta", "camembert", "mpnet"}
"""Families whose first position is the one after the padding token's id."""


def location(teacher: Teacher) -> tuple[str, dict[str, Any]]:
    """Return the path or hub id of a teacher and the keyword arguments to load it with (safetensors only)."""
    folder = source_folder(teacher.source)
    if folder is not None:
        return str(folder), {"local_files_only": True}
    return teacher.source.partition(":")[2], {"revision": teacher.revision}


def origin(source: str, revision: str | None, sha256: str | None) -> str:
    """Return hub id and revision, or the content hash of a local folder (weights, configuration, tokenizer).

    Args:
        source, revision, sha256: as in the group ``teacher``.

    Raises:
        ValueError: the weights are not the ones that ``teacher.sha256`` promises.
    """
    folder = source_folder(source)
    if folder is None:
        return f"{source}@{revision or 'main'}"
    contents = {p.name: checksum(p) for p in sorted(folder.glob("*")) if p.suffix in KINDS and p.is_file()}
    if sha256 is not None:
        content = contents.get(weights.SINGLE) or weights.checksum(folder)
        if content != sha256:
            raise ValueError(
                f"teacher.sha256={sha256} but the weights in {folder} have {content}: they are not the expected ones; "
                "reinstall them, or set teacher.sha256=null if you trust them."
            )
    lines = "".join(f"{name}:{content}\n" for name, content in contents.items())
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def positions(said: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model can read, by its config.json; None if nothing limits it, or nothing is said."""
    most = said.get("max_position_embeddings")
    if most is None or said.get("position_biased_input") is False:  # DeBERTa-v3 knows distances only
        return None
    taken = int(said.get("pad_token_id") or 0) + 1 if said.get("model_type") in COUNTED_FROM_PADDING else 0
    return int(most) - taken


def no_weights(init: str, weight: str) -> str:
    """Return the sentence about a weight that shall be copied from a pretrained teacher and is not in its files."""
    what = "pooler" if "pooler." in weight else "head"
    return (
        f"init={init} with init.source=pretrained and init.{what}=true: the teacher's files have no {what} ({weight}), "
        f"so the student would copy random numbers: use init.{what}=false, or init.source=finetuned."
    )
