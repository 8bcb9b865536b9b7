"""Checkpoints in the forms in which the hub holds them, with random weights.

    written = write("bert_base", folder)      # full depth, reduced width
    publish(hub, "bert_base", folder)         # the same, as a repository of a stand-in hub

What they hold stands in :mod:`tests.hub.catalogue`.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hub.catalogue import CATALOGUE, Checkpoint
from tests.hub.layouts import Shapes, Sizes
from tests.hub.repositories import Repository
from tests.hub.server import Hub
from tests.hub.vocabularies import Vocabulary, as_json


@dataclass(frozen=True)
class Written:
    """A checkpoint on disk: its folder, its sizes, and the weights that its file holds by name."""

    folder: Path
    sizes: Sizes
    weights: Shapes

    def overrides(self, group: str = "teacher") -> list[str]:
        """Return the words of the command line that tell kdexp these sizes instead of the real ones."""
        s = self.sizes
        told = {"num_layers": s.layers, "hidden_size": s.width, "num_heads": s.heads}
        told |= {"intermediate_size": s.inner, "vocab_size": s.vocab}
        return [f"{group}.{key}={value}" for key, value in told.items()]


def write(name: str, folder: Path, real: bool = False, shards: int = 1) -> Written:
    """Write a checkpoint of the catalogue into a new folder.

    Args:
        name: its short name.
        folder: made if it is not there.
        real: real width and vocabulary size instead of reduced ones.
        shards: files that the safetensors weights are spread over.
    """
    checkpoint = CATALOGUE[name]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = checkpoint.vocabulary(checkpoint.sizes.vocab if real else None) if checkpoint.vocabulary else None
    rows = vocabulary.size if vocabulary else 0
    sizes = checkpoint.sizes if real else checkpoint.sizes.reduced(rows, checkpoint.positions)
    for file, content in _small_files(checkpoint, sizes, vocabulary).items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    shapes = checkpoint.weights(sizes)
    weights = tensors(shapes, sizes.width, checkpoint.half, seed=zlib.crc32(name.encode()))
    if checkpoint.safe:
        _save_safely(weights, folder, shards)
    if checkpoint.pickled:
        import torch

        tied = checkpoint.in_pickle(sizes) if checkpoint.in_pickle else {}
        table = next(iter(tensor for key, tensor in weights.items() if "word_embeddings" in key), None)
        torch.save(weights | dict.fromkeys(tied, table), folder / "pytorch_model.bin")
    return Written(folder, sizes, shapes)


def publish(hub: Hub, name: str, folder: Path, real: bool = False, shards: int = 1) -> Repository:
    """Write a checkpoint and commit it to its repository, with the robot's pull request where there is one."""
    checkpoint, written = CATALOGUE[name], write(name, folder, real, shards)
    repository = hub.repository(checkpoint.repository)
    repository.commit_folder(folder)
    if checkpoint.converted:
        offered = folder.with_name(folder.name + "-offered")
        offered.mkdir(exist_ok=True)
        weights = tensors(written.weights, written.sizes.width, checkpoint.half, seed=zlib.crc32(name.encode()))
        _save_safely(weights, offered, 1)
        repository.propose({"model.safetensors": offered / "model.safetensors"})
    return repository


def tensors(shapes: Shapes, width: int, half: bool, seed: int) -> dict[str, Any]:
    """Make weights: gains near one, matrices small enough for their width, positions and masks as they must be."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, shape in shapes.items():
        if name.endswith("position_ids"):
            out[name] = torch.arange(shape[-1]).unsqueeze(0)
            continue
        if len(shape) == 4 and name.endswith("attn.bias"):
            out[name] = torch.ones(shape).tril()
            continue
        value = torch.randn(shape, generator=generator) * 0.5 / width**0.5
        gain = len(shape) == 1 and name.endswith((".weight", ".gamma"))
        out[name] = (1 + value if gain else value).to(torch.float16 if half else torch.float32)
    return out


def _save_safely(weights: dict[str, Any], folder: Path, shards: int) -> None:
    from safetensors.torch import save_file

    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(weights)
    placed: dict[str, str] = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i * len(names) // shards : (i + 1) * len(names) // shards]
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        placed |= dict.fromkeys(part, file)
    total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))}
    (folder / "model.safetensors.index.json").write_bytes(as_json(index, 2))


def _small_files(checkpoint: Checkpoint, sizes: Sizes, vocabulary: Vocabulary | None) -> dict[str, bytes]:
    """All files of a repository but its weights."""
    config = checkpoint.config(sizes, vocabulary.ids if vocabulary else {})
    card = f"---\nlanguage: en\nlicense: apache-2.0\n---\n\n# {checkpoint.repository}\n"
    files = {"config.json": as_json(config, 2) + b"\n", "README.md": card.encode(), ".gitattributes": b""}
    files |= dict.fromkeys(checkpoint.neglected, b"for another library\n")
    for file, content in (checkpoint.others or {}).items():
        files[file] = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    if vocabulary:
        files |= vocabulary.files if checkpoint.slow else {}
        if checkpoint.fast:
            files["tokenizer.json"] = vocabulary.fast
        if checkpoint.tokenizer is not None:
            files["tokenizer_config.json"] = as_json(checkpoint.tokenizer)
        if checkpoint.special is not None:
            files["special_tokens_map.json"] = as_json(checkpoint.special)
    return files
