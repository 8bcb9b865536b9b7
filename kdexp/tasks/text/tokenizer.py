"""Tokenizers: load from a teacher's source, tell two apart by content, check against a model's vocabulary."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from kdexp.tasks.base import DataContext


def load(folder: str | Path, revision: str | None = None) -> Any:
    """Load the (fast, where there is one) tokenizer of a local folder or a hub id. No code of the folder is run.

    The environment variable TOKENIZERS_PARALLELISM is respected; unset, threads are off when this process may use
    one core only (OMP_NUM_THREADS=1), as in a grid of many processes.

    Raises:
        ValueError: there is no usable tokenizer.
    """
    if os.environ.get("OMP_NUM_THREADS") == "1":
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), revision=revision or "main", trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"no tokenizer can be loaded from {folder}: {error}. A folder needs tokenizer.json (or vocab.txt) beside "
            "config.json; save it with tokenizer.save_pretrained()."
        ) from error
    if tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer of {folder} has no padding token: batches cannot be made; add pad_token to it")
    return tokenizer


def of_teacher(context: DataContext) -> Any:
    """Load the teacher's tokenizer (teacher and student share it), at most as long as the model's positions.

    Raises:
        ValueError: there is none, or it does not fit the teacher or the asked length.
    """
    reader = load(context.model, context.options.get("revision"))
    reader.model_max_length = min(reader.model_max_length, context.positions or reader.model_max_length)
    wrong = problems(reader, context.vocab_size, "teacher", context.max_length) if context.vocab_size else []
    if wrong:
        raise ValueError(" ".join(wrong))
    return reader


def digest(tokenizer: Any) -> str:
    """sha256 (hex) of what decides the ids: vocabulary, rules, special tokens, segment ids. Not of names or paths."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Calls leave their padding and truncation in the backend; they are no part of what the tokenizer is.
        backend.no_padding()
        backend.no_truncation()
        content = backend.to_str()
    else:
        content = json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())], ensure_ascii=True)
    rest = [tokenizer.pad_token_id, sorted(tokenizer.model_input_names), str(getattr(tokenizer, "padding_side", ""))]
    return hashlib.sha256((content + json.dumps(rest)).encode("utf-8", "surrogatepass")).hexdigest()


def problems(tokenizer: Any, vocab_size: int, who: str = "teacher", max_length: int | None = None) -> list[str]:
    """What does not fit between a tokenizer and a model, as sentences for people.

    Args:
        tokenizer: of transformers.
        vocab_size: rows of the model's embedding table.
        who: whose model it is, for the message.
        max_length: tokens that the recipe asks for, checked against what the tokenizer says its model can take.
    """
    found = []
    highest = max(tokenizer.get_vocab().values())
    if highest >= vocab_size:
        found.append(
            f"{who}.vocab_size={vocab_size}, but the tokenizer gives ids up to {highest}: the tokenizer belongs to "
            "another model, or the embeddings were cut; use the folder that both were saved to."
        )
    if max_length and max_length > tokenizer.model_max_length:
        found.append(
            f"recipe.max_length={max_length} is above the {tokenizer.model_max_length} tokens that the {who} can read: "
            "lower it."
        )
    return found
