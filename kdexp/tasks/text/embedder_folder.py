"""A saved embedder as a folder of sentence-transformers: what stands beside weights, configuration and tokenizer.

The package itself is not needed; the files are those of its version 2 and later.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdexp.common import files

PACKAGE = "sentence_transformers.models"
WEIGHTS = "model.safetensors"
MAP = "dense"
"""Name that the map to another width has among a model's weights."""


def write(folder: Path, max_length: int) -> None:
    """Write the files that describe how texts become vectors.

    Args:
        folder: of a saved embedder: its ``config.json`` and weights say what it does.
        max_length: tokens after which a text is cut.
    """
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kinds, width, out = ["Transformer", "Pooling"], _width(said), said.get("embedding_out")
    _settings(folder / "1_Pooling", _pooling(width, said["embedding_pool"]))
    if out is not None and out != width:
        kinds.append("Dense")
        _dense(folder, folder / f"{len(kinds) - 1}_Dense", width, out)
    if said["embedding_normalize"]:
        kinds.append("Normalize")
    modules = [
        {"idx": number, "name": str(number), "path": f"{number}_{kind}" if number else "", "type": f"{PACKAGE}.{kind}"}
        for number, kind in enumerate(kinds)
    ]
    files.write_json(folder / "modules.json", modules)
    files.write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    files.write_json(folder / "config_sentence_transformers.json", {"__version__": {}, "similarity_fn_name": "cosine"})


def _width(said: dict[str, Any]) -> int:
    """Return the width of the hidden states; DistilBERT calls it otherwise."""
    return int(said["hidden_size"] if "hidden_size" in said else said["dim"])


def _pooling(width: int, pool: str) -> dict[str, Any]:
    return {
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": pool == "cls",
        "pooling_mode_mean_tokens": pool == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }


def _settings(folder: Path, values: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    files.write_json(folder / "config.json", values)


def _dense(model: Path, folder: Path, width: int, out: int) -> None:
    """Write the map to another width as a module of its own."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    _settings(
        folder,
        {
            "in_features": width,
            "out_features": out,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    with safe_open(model / WEIGHTS, "np") as weights, files.fresh(folder / WEIGHTS) as path:
        save_file({f"linear.{name}": weights.get_tensor(f"{MAP}.{name}") for name in ("weight", "bias")}, path)


def problems(folder: Path, pool: str) -> list[str]:
    """Say what a folder of sentence-transformers does with its hidden states that an embedder of kdexp would not.

    Args:
        folder: of a saved encoder; one that is no such folder passes.
        pool: how its hidden states are to be pooled.

    Raises:
        ValueError: one of its files is damaged.
    """
    wrong, modules = [], files.read_json(folder / "modules.json")
    stated = _pooled(files.read_json(folder / "1_Pooling" / "config.json"))
    if stated not in (None, pool):
        wrong.append(
            f"task.pool={pool}, but its 1_Pooling/config.json says {stated}: its vectors would be other ones than it "
            f"was trained for; use task.pool={stated}, or another teacher (mean and cls are known)"
        )
    kinds = {str(one.get("type")).rpartition(".")[2] for one in modules} if isinstance(modules, list) else set()
    own = "embedding_out" in (files.read_json(folder / "config.json") or {})  # kdexp's, whose map is among its weights
    unread = sorted(kinds - {"Transformer", "Pooling", "Normalize", *(["Dense"] if own else [])})
    if unread:
        wrong.append(f"its modules.json names {', '.join(unread)}, which is not read here: choose another teacher")
    return wrong


def _pooled(said: Any) -> str | None:
    """Return how vectors are made by a module's settings: ``mean``, ``cls`` or a name of sentence-transformers."""
    if not isinstance(said, dict):
        return None
    modes = {name.removeprefix("pooling_mode_") for name, on in said.items() if name.startswith("pooling_mode_") and on}
    if isinstance(said.get("pooling_mode"), str):  # newer versions name it
        modes = {said["pooling_mode"]}
    names = {"mean_tokens": "mean", "cls_token": "cls"}
    return " and ".join(sorted(names.get(mode, mode) for mode in modes)) or None
