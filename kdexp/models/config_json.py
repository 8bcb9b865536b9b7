"""What a model's ``config.json`` says, checked by itself and against its weights before a model is built of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdexp.models import weights
from kdexp.models.families.base import family
from kdexp.models.weights import Shapes

MOST = 100_000_000
"""Above every size of a real model; what is beyond it is a slip of the pen, and would be asked of the memory."""

KNOWN = {
    "bert", "roberta", "electra", "deberta", "deberta-v2", "distilbert", "modernbert", "xlm-roberta", "camembert",
    "vit", "gpt2", "cifar_resnet",
}  # fmt: skip
"""Some of transformers' types of models, and kdexp's own: for others it is asked, which takes seconds."""

ACTIVATIONS = {"gelu", "gelu_new", "relu", "silu", "swish", "tanh"}
"""Some of transformers' activations, likewise."""

SIZES = (
    "num_hidden_layers", "n_layers", "hidden_size", "dim", "embedding_size", "num_attention_heads", "n_heads",
    "intermediate_size", "hidden_dim", "vocab_size", "max_position_embeddings", "n_layer", "n_embd", "n_head",
    "n_inner", "n_positions",
)  # fmt: skip
WIDTHS = ("hidden_size", "dim", "embedding_size", "intermediate_size", "hidden_dim", "n_embd", "n_inner")
"""Sizes that are rows or columns of some weight."""

LAYERS = ("num_hidden_layers", "n_layers", "n_layer")
TABLES = {
    "vocab_size": ("word_embeddings.weight", "wte.weight"),
    "max_position_embeddings": ("position_embeddings.weight",),
    "n_positions": ("wpe.weight",),
    "type_vocab_size": ("token_type_embeddings.weight",),
}
"""Sizes that are the rows of a table, and how its name ends, by family."""


DECODING = ("is_decoder", "add_cross_attention")
"""Switches that make a decoder of an encoder: it would read to the left only."""
KERNELS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation")
"""Settings by which transformers fetches kernels, which are code, from a repository that they name."""


def read(folder: Path) -> dict[str, Any]:
    """Return what a folder's ``config.json`` says; {} if it says nothing that can be read."""
    try:
        said = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def problems(folder: Path, declared: str | None = None) -> list[str]:
    """Say what cannot be meant in a folder's ``config.json``, as sentences for people.

    Args:
        folder: of a saved model.
        declared: ``teacher.family``, where it is given.
    """
    said, path = read(folder), folder / "config.json"
    found = _type(said, path, declared) + [
        f"{path} says {key}={said[key]!r:.60}: {rule}; correct it, or download or save the model again."
        for key, (fits, rule) in _rules(said).items()
        if said.get(key) is not None and not fits(said[key])
    ]
    shapes = weights.shapes(folder)
    return found or ([] if shapes is None else _against(said, path, shapes))


def labels(said: Mapping[str, Any]) -> dict[int | str, str]:
    """Return the names of a classifier's outputs; as transformers does, two are made up where none are told."""
    named = said.get("id2label") or {i: f"LABEL_{i}" for i in range(int(said.get("num_labels") or 2))}
    return {int(number): str(name) for number, name in named.items()}


def _type(said: Mapping[str, Any], path: Path, declared: str | None) -> list[str]:
    """Check ``model_type``: transformers builds nothing without it."""
    kind = said.get("model_type")
    if not isinstance(kind, str):
        example = declared or "bert"
        return [
            f'{path} has no model_type, so its architecture is unknown: add "model_type": "{example}" '
            f"{'(as teacher.family says)' if declared else '(or roberta, electra, ...)'} to it."
        ]
    if kind not in KNOWN:
        from transformers import CONFIG_MAPPING

        if kind not in CONFIG_MAPPING:
            return [f"{path} says model_type={kind!r:.60}, which transformers does not know: correct it."]
    return []


def _rules(said: Mapping[str, Any]) -> dict[str, tuple[Callable[[Any], bool], str]]:
    """Return for each known key what its value must be, and the rule in words."""
    size = (lambda v: type(v) is int and 1 <= v <= MOST, f"a whole number from 1 to {MOST} is needed")
    from_zero = (lambda v: type(v) is int and 0 <= v <= MOST, f"a whole number from 0 to {MOST} is needed")
    share = (lambda v: _number(v) and 0 <= v <= 1, "a share between 0 and 1 is needed")
    positive = (lambda v: _number(v) and 0 < v < 1e6, "a number above 0 is needed")
    named = (_activation, "an activation that transformers knows is needed, such as gelu")
    rules: dict[str, tuple[Callable[[Any], bool], str]] = dict.fromkeys(SIZES, size)
    rules["type_vocab_size"] = from_zero
    rows = said.get("vocab_size")
    last = rows - 1 if type(rows) is int else MOST
    rules["pad_token_id"] = (lambda v: type(v) is int and 0 <= v <= last, f"a whole number from 0 to {last} is needed")
    rules |= {key: share for key in said if key.endswith(("dropout", "dropout_prob", "_pdrop"))}
    rules |= dict.fromkeys(("layer_norm_eps", "layer_norm_epsilon", "norm_eps", "initializer_range"), positive)
    rules |= dict.fromkeys(("hidden_act", "hidden_activation", "activation", "activation_function"), named)
    rules |= {key: (lambda v: not v, "must be false: an encoder is distilled") for key in DECODING}
    rules |= {key: (lambda v: "/" not in str(v), "no repository is named here: its code would run") for key in KERNELS}
    rules["return_dict"] = (lambda v: v is True, "true is needed: answers are asked for by name")
    rules["chunk_size_feed_forward"] = (lambda v: v == 0, "0 is needed: layers are not cut")
    rules["output_attentions"] = (lambda v: v is False, "false is needed: what is captured is kdexp's choice")
    rules["num_labels"] = size
    rules["id2label"] = (_names, "a name for each output is needed, numbered from 0")
    return rules


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _activation(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    if name in ACTIVATIONS:
        return True
    from transformers.activations import ACT2FN

    return name in ACT2FN


def _names(value: Any) -> bool:
    """Tell whether labels are named by their numbers, all of them."""
    if not isinstance(value, dict) or not value or not all(isinstance(name, str | int) for name in value.values()):
        return False
    return all(str(key).isdecimal() for key in value) and {int(key) for key in value} == set(range(len(value)))


def _against(said: Mapping[str, Any], path: Path, shapes: Shapes) -> list[str]:
    """Compare sizes with the weights: what is not in them would be made up, and what is more would be lost."""
    found = []
    depths = [_depth(block, shapes) for block in family(str(said.get("model_type"))).blocks]
    deep = max(depths, default=0)
    sides = {side for shape in shapes.values() for side in shape}
    tables = {
        key: {shape[0] for name, shape in shapes.items() if f".{name}".endswith(ends) and len(shape) == 2}
        for key, ends in ((key, tuple(f".{end}" for end in ends)) for key, ends in TABLES.items())
    }
    for key in (*SIZES, "type_vocab_size"):
        value = said.get(key)
        if value is None:
            continue
        if key in LAYERS and deep and value != deep:
            found.append(f"{path} says {key}={value}, but its weights have {deep} layers")
        elif key in WIDTHS and value not in sides:
            found.append(f"{path} says {key}={value}, but none of its weights has that many rows or columns")
        elif tables.get(key) and value not in tables[key]:
            found.append(f"{path} says {key}={value}, but the table of its weights has {min(tables[key])} rows")
    return [f"{text}: they are not of one model; download or save it again." for text in found]


def _depth(block: str, shapes: Shapes) -> int:
    """Return how many blocks there are at a path, by the names of the weights."""
    pattern = re.compile(rf"(?:^|\.){re.escape(block)}\.(\d+)\.")
    return max((int(match[1]) + 1 for name in shapes if (match := pattern.search(name))), default=0)
