"""Where a teacher's weights are, what identifies them, and what its folder holds; no weights are loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdexp.common import network
from kdexp.common.files import checksum
from kdexp.config.resolve import FAMILIES_WITH_ATTENTION, placed, sizes, source_folder
from kdexp.config.schema import Config, Own, Teacher
from kdexp.models import weights

KINDS = (".safetensors", ".json", ".txt", ".model")
"""Endings of the files that are what a teacher is: weights, configuration, tokenizer."""

INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", INDEX)
"""Names of the files that are fetched from the hub for a model's weights; of shards, by their index."""

VOCABULARIES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "spiece.model", "sentencepiece.bpe.model",
    "tokenizer.model",
)  # fmt: skip
"""Names of the files that a tokenizer's vocabulary may be in."""

DESCRIPTION = (
    "config.json", *VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "merges.txt", "bpe.codes", "chat_template.jinja", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
"""Names of the files that are fetched from the hub for all else: configuration, tokenizer, image processor."""

COUNTED_FROM_PADDING = {"roberta", "xlm-roberta", "camembert", "mpnet"}
"""Families whose first position is the one after the padding token's id."""


SCRATCH = "scratch:"
"""What a source begins with whose folder gives the architecture alone: the teacher's first weights are random."""


STAGE = "stage:"
"""What the origin of weights begins with that a stage has made; its key follows."""


def from_scratch(source: str) -> bool:
    """Tell whether a teacher's weights are not loaded but drawn, by its ``source``."""
    return source.startswith(SCRATCH)


OF_POSITIONS = {"model_type", "max_position_embeddings", "pad_token_id"}
"""Keys of a config.json from which :func:`positions` is known without the defaults of its family."""


def is_cut(teacher: Teacher) -> bool:
    """Tell whether a teacher is the first layers only (``teacher.num_layers``) of a model that has more."""
    have = sizes({"source": teacher.source, "commit": teacher.commit}).get("num_layers")
    return have is not None and teacher.num_layers is not None and teacher.num_layers < have


def lacking(files: Iterable[str], folder: Path | None = None) -> str:
    """Return what a model cannot be loaded without and is not among its files; '' if nothing is.

    Args:
        files: names of all of them.
        folder: where they are, if they are here: then an index is read for the names of its shards.
    """
    have = set(files)
    if "config.json" not in have:
        return "config.json"
    if "model.safetensors" in have:
        return ""
    if INDEX not in have:
        return "model.safetensors"
    return next(iter(sorted(_shards(folder) - have)), "") if folder is not None else ""


def _shards(folder: Path) -> set[str]:
    """Return the names of the files that an index names; none if it cannot be read, which loading says better."""
    try:
        return {name for name in json.loads((folder / INDEX).read_text())["weight_map"].values() if "/" not in name}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def own(config: Config) -> Own | None:
    """Return the checkpoint that a run's student is, where it brings one of its own; its init has been checked."""
    init, student = config.init, config.student
    if not placed(init):
        return None
    where = {key: init.get(key) for key in ("name", "source", "revision", "commit", "sha256", "family")}
    sizes = student.model_dump(exclude={"name", "sharing"})
    attention = str(where["family"]) in FAMILIES_WITH_ATTENTION
    return Own.model_validate({**where, **sizes, "attention": attention})


def of_student(config: Config) -> Teacher:
    """Return the model whose architecture a run's student has: its own checkpoint, or its teacher."""
    return own(config) or config.teacher


def location(teacher: Teacher) -> tuple[str, dict[str, Any]]:
    """Return the folder of a teacher and the keyword arguments to load it with; nothing is fetched.

    What a model of the hub is loaded from is the cache's folder of its commit, so loading asks nobody. While its commit
    is unknown there is only its name.
    """
    folder = source_folder(teacher.source, teacher.commit)
    if folder is not None:
        return str(folder), {"local_files_only": True}
    return teacher.source.partition(":")[2], {"revision": teacher.revision}


def fetch(teacher: Teacher, weights: bool = False) -> None:
    """See to it that the files of a teacher of the hub are here; of others, and of those that are here, there is none.

    Args:
        teacher: the resolved group ``teacher``.
        weights: they are needed too.

    Raises:
        ValueError: the hub has to be asked and does not answer.
    """
    if teacher.commit is None:
        return
    name = teacher.source.partition(":")[2]
    folder = network.fetch(name, teacher.commit, DESCRIPTION + (WEIGHTS if weights else ()))
    shards = _shards(folder) if weights and not (folder / "model.safetensors").is_file() else set()
    if shards:
        network.fetch(name, teacher.commit, tuple(sorted(shards)))


def origin(source: str, commit: str | None, sha256: str | None, place: str = "teacher") -> str:
    """Return hub id and commit, or the content hash of a local folder (weights, configuration, tokenizer).

    Args:
        source, commit, sha256: as in the group ``teacher``.
        place: the group that names it.

    Raises:
        ValueError: the weights are not the ones that its ``sha256`` promises.
    """
    folder = source_folder(source)
    if folder is None:
        return f"{source}@{commit}"
    contents = {p.name: checksum(p) for p in sorted(folder.glob("*")) if p.suffix in KINDS and p.is_file()}
    if sha256 is not None:
        wrong = other_weights(folder, sha256, contents.get(weights.SINGLE) or weights.checksum(folder), place)
        if wrong:
            raise ValueError(" ".join(wrong))
    lines = "".join(f"{name}:{content}\n" for name, content in contents.items())
    return f"{SCRATCH if from_scratch(source) else ''}sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def other_weights(folder: Path, sha256: str, content: str, place: str = "teacher") -> list[str]:
    """Say that a folder's weights are not the ones that ``sha256`` promises; [] = they are.

    Args:
        folder: where they are.
        sha256: what was promised.
        content: the sha256 (hex) that they have.
        place: the group that promised it.
    """
    if content == sha256:
        return []
    return [
        f"{place}.sha256={sha256} but the weights in {folder} have {content}: they are not the expected ones; "
        f"reinstall them, or set {place}.sha256=null if you trust them."
    ]


def pinned(said: str) -> bool:
    """Tell whether an :func:`origin` names one content for good: a hash, a stage, or a commit of the hub."""
    return said.startswith(("sha256:", STAGE)) or re.fullmatch(r".+@[0-9a-f]{40}", said) is not None


def positions(said: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model can read, by its config.json; None if nothing limits it, or nothing is said."""
    most = said.get("max_position_embeddings", said.get("n_positions"))
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
