"""Tokenizers: load from a teacher's source, tell two apart by content, check against a model and the task's texts."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from kdexp.common.machine import version
from kdexp.tasks.base import DataContext
from kdexp.tasks.text.rows import Rows

SMALLEST_VOCABULARY = 0.5
"""A tokenizer that knows fewer than this share of a model's ``vocab_size`` belongs to another model. Published models
pad their embeddings to a round number, which adds some percent; a folder without tokenizer files gives five entries."""

MOST_UNKNOWN = 0.15
"""Share of unknown tokens in a task's texts from which on a tokenizer is refused. Models are pretrained with about as
many of their tokens hidden, so they can cope with less; GLUE has below 0.1 % with its models' own tokenizers, and the
tokenizer of another language or alphabet most of the text."""

BAKED = ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of")
"""Settings of earlier calls that tokenizers carry in their configuration."""


def load(folder: str | Path, revision: str | None = None, pads: bool = True) -> Any:
    """Load the (fast, where there is one) tokenizer of a local folder or a hub id. No code of the folder is run.

    The environment variable TOKENIZERS_PARALLELISM is respected; unset, threads are off when this process may use
    one core only (OMP_NUM_THREADS=1), as in a grid of many processes.

    Args:
        folder: or the id.
        revision: of the hub's.
        pads: it needs a padding token.

    Raises:
        ValueError: there is no usable tokenizer.
    """
    if os.environ.get("OMP_NUM_THREADS") == "1":
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoTokenizer

    remedy = (
        "A folder needs tokenizer.json, or the vocabulary (vocab.txt; vocab.json and merges.txt; a .model file) "
        "beside config.json: save it there with tokenizer.save_pretrained(), or copy the files of the model that this "
        "one was made from."
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), revision=revision or "main", trust_remote_code=False)
    except Exception as error:  # of several libraries, of many kinds, the bare Exception of tokenizers among them
        if find_spec("sentencepiece") is None and any(word in str(error) for word in ("tiktoken", "sentencepiece")):
            remedy = "Its vocabulary is a file of SentencePiece, which is not installed: pip install sentencepiece."
        raise ValueError(f"no tokenizer can be loaded from {folder}: {_line(error)}. {remedy}") from error
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # transformers makes one up without files
        raise ValueError(f"no tokenizer can be loaded from {folder}: it has no vocabulary. {remedy}")
    if pads and tokenizer.pad_token_id is None:
        raise ValueError(f"the tokenizer of {folder} has no padding token: batches cannot be made; add pad_token to it")
    return tokenizer


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= 200 else f"{text[:197]}...").rstrip(".")


def of_teacher(context: DataContext, pads: bool = True) -> Any:
    """Load a model's tokenizer (teacher and student share one, or each has its own), no longer than its positions.

    Args:
        context: names the teacher.
        pads: it needs a padding token.

    Raises:
        ValueError: there is none, or it does not fit the model or the asked length.
    """
    reader = load(context.model, context.options.get("revision"), pads)
    longest = reader.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float):
        raise ValueError(f"the tokenizer of {context.model} has model_max_length={longest!r}: save it with a number")
    reader.model_max_length = min(longest, context.positions or longest)
    wrong = problems(reader, context.vocab_size, context.who, context.max_length) if context.vocab_size else []
    if wrong:
        raise ValueError(" ".join(wrong))
    return reader


def save(tokenizer: Any, folder: Path, max_length: int) -> None:
    """Write a tokenizer beside a saved model: ids as here, nothing cut or padded unless a caller asks for it.

    Args:
        tokenizer: of transformers; it is changed.
        folder: of the model.
        max_length: where ``truncation=True`` cuts: the length that the model was trained and measured with.
    """
    tokenizer.model_max_length = max_length
    for name in BAKED:
        tokenizer.init_kwargs.pop(name, None)
    _plain(tokenizer)
    tokenizer.save_pretrained(folder)


def _plain(tokenizer: Any) -> Any:
    """Free the backend of the padding and truncation that files and calls leave in it; return it, None without one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_padding()
        backend.no_truncation()
    return backend


def state(context: DataContext) -> str:
    """Return a string that changes when a teacher's tokenizer might; costs milliseconds."""
    folder = Path(context.model)
    stats = [(p.name, p.stat()) for p in sorted(folder.glob("*")) if p.suffix in (".json", ".txt", ".model", ".jinja")]
    files = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    return json.dumps([str(folder.absolute()) if files else context.model, context.options, files, context.vocab_size])


def versions() -> list[str]:
    """Return the versions of the libraries that make a tokenizer of files."""
    return [version(name) for name in ("transformers", "tokenizers")]


def unknown(tokenizer: Any, rows: Rows) -> float:
    """Return the share of unknown tokens among those of some texts (special tokens left out)."""
    if tokenizer.unk_token_id is None:
        return 0.0
    ids = [i for text in _batches(rows) for row in tokenizer(text, **AS_IT_IS)["input_ids"] for i in row]
    return float(np.mean(np.array(ids) == tokenizer.unk_token_id)) if ids else 0.0


def unknown_words(tokenizer: Any, rows: Rows, most: int = 3) -> list[str]:
    """Return the most frequent words of some texts that a tokenizer has unknown tokens for."""
    counts = Counter(word for texts in _batches(rows) for text in texts for word in text.split())
    found = []
    for word, _ in counts.most_common():
        if tokenizer.unk_token_id in tokenizer(word, **AS_IT_IS)["input_ids"]:
            found.append(word if len(word) <= 20 else f"{word[:17]}...")
        if len(found) == most:
            break
    return found


def refuse_unknown(tokenizer: Any, rows: Rows, model: str, task: str) -> float:
    """Return the share of tokens of a task's training texts that a tokenizer does not know.

    Args:
        model: whose tokenizer it is, for the message.
        task: whose texts they are.

    Raises:
        ValueError: it is too large; names some of the words.
    """
    share = unknown(tokenizer, rows)
    if share > MOST_UNKNOWN:
        words = ", ".join(repr(word) for word in unknown_words(tokenizer, rows))
        raise ValueError(
            f"the tokenizer of {model} does not know {share:.0%} of the tokens in the training texts of "
            f"task={task} (such as {words}; up to {MOST_UNKNOWN:.0%} are let pass): it belongs to "
            "another model, language or spelling; use the files that the model was pretrained with."
        )
    return share


AS_IT_IS: dict[str, Any] = {"add_special_tokens": False, "truncation": False, "padding": False, "verbose": False}
"""A call that gives all tokens of a text and no others."""


def _batches(rows: Rows) -> list[list[str]]:
    return [rows.first] if rows.second is None else [rows.first, rows.second]


def digest(tokenizer: Any) -> str:
    """sha256 (hex) of what decides the ids: vocabulary, rules, special tokens, segment ids. Not of names or paths."""
    backend = _plain(tokenizer)
    if backend is not None:
        content = backend.to_str()
    else:
        content = json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())], ensure_ascii=True)
    rest = [tokenizer.pad_token_id, sorted(tokenizer.model_input_names), str(getattr(tokenizer, "padding_side", ""))]
    return hashlib.sha256((content + json.dumps(rest)).encode("utf-8", "surrogatepass")).hexdigest()


PROBES = (
    "The café's naïve résumé cost 1,234.56 € -- twice!", "  two  spaces,\ta tab\nand a line ",
    "ÀÉÎ Straße ﬁne ½ Ｗｉｄｅ", "日本語 한국어 русский العربية हिन्दी ไทย", "HTML &amp; <b>code</b> [x]",
    "🙂 don't re-do e-mail_x@y.org #tag http://a.b/c?d=1",
    "antidisestablishmentarianism XYZZY iPhone 0x1F \u200bzero\u00a0width", "a",
)  # fmt: skip
"""Texts on which tokenizers differ: case, accents, spaces, scripts, signs, long words."""


@dataclass(frozen=True)
class Compared:
    """Two tokenizers beside each other.

    Attributes:
        teacher, student: what each is, for people.
        alike: they give the same tokens.
        typed: which of them give segment ids too.
    """

    teacher: str
    student: str
    alike: bool
    typed: tuple[bool, bool]

    @property
    def same(self) -> bool:
        """They make the same inputs."""
        return self.alike and self.typed[0] == self.typed[1]

    @property
    def serves(self) -> bool:
        """The teacher's makes everything that the student reads."""
        return self.alike and self.typed[0] >= self.typed[1]


@lru_cache(maxsize=64)
def compared(teacher: str, student: str, stamp: tuple[Any, ...]) -> Compared:
    """Return how the tokenizers of two folders differ, each pair once a process.

    Args:
        teacher, student: the folders.
        stamp: changes with their files.

    Raises:
        ValueError: one of them cannot be used.
    """
    readers = [load(folder) for folder in (teacher, student)]
    vocabularies = [reader.get_vocab() for reader in readers]
    alike = vocabularies[0] == vocabularies[1] and _ids(readers[0]) == _ids(readers[1])
    names = [f"{type(r).__name__} of {len(v)} entries" for r, v in zip(readers, vocabularies, strict=True)]
    typed = ["token_type_ids" in reader.model_input_names for reader in readers]
    return Compared(names[0], names[1], alike, (typed[0], typed[1]))


def _ids(tokenizer: Any) -> list[Any]:
    """Return what a tokenizer makes of the texts that tell tokenizers apart, alone and in pairs, and of padding."""
    plain = {"truncation": False, "padding": False, "verbose": False}
    alone = [tokenizer(text, **plain)["input_ids"] for text in PROBES]
    pairs = [tokenizer(*pair, **plain)["input_ids"] for pair in pairwise(PROBES)]
    return [*alone, *pairs, tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.unk_token_id]


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
    if len(tokenizer) < SMALLEST_VOCABULARY * vocab_size:
        found.append(
            f"{who}.vocab_size={vocab_size}, but the tokenizer knows {len(tokenizer)} tokens only: it belongs to "
            "another model, or its files are incomplete; use the folder that both were saved to."
        )
    if max_length and max_length > tokenizer.model_max_length:
        found.append(
            f"recipe.max_length={max_length} is above the {tokenizer.model_max_length} tokens that the {who} can read: "
            "lower it."
        )
    return found
