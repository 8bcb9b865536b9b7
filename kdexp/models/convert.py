"""Safetensors of pickled weights, when a person asks for it: ``python -m kdexp convert``.

The file is read with PyTorch's restricted unpickler, which makes tensors and plain containers and refuses everything
else. Nothing else in kdexp opens such a file.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.models import weights

if TYPE_CHECKING:
    from torch import Tensor

KEPT = (".json", ".txt", ".model")
"""Endings of what is copied beside the weights: configuration and tokenizer."""

PICKLED, SHARDED = weights.PICKLED


def fetch(repository: str, revision: str | None) -> Path:
    """Return the folder of the hub's cache with a model's pickled weights, configuration and tokenizer.

    Raises:
        ValueError: there are none.
        OSError: the hub does not answer as it should.
    """
    from huggingface_hub import HfApi, hf_hub_download

    try:
        listed = HfApi().model_info(repository, revision=revision)
    except Exception as error:  # the client has errors of many kinds
        raise OSError(f"{repository} cannot be had from the hub ({type(error).__name__}: {error})") from error
    names = [file.rfilename for file in listed.siblings or [] if "/" not in file.rfilename]
    pickled = next((name for name in (PICKLED, SHARDED) if name in names), None)
    if pickled is None:
        raise ValueError(f"{repository} has no {PICKLED} to convert.")
    kept = [name for name in names if name.endswith(KEPT)]
    folder = Path(hf_hub_download(repository, pickled, revision=listed.sha)).parent
    shards = sorted(set(_placed(folder).values())) if pickled == SHARDED else []
    for name in (*kept, *shards):
        hf_hub_download(repository, name, revision=listed.sha)
    return folder


def convert(source: Path, target: Path) -> None:
    """Write a model with pickled weights to a new folder, with safetensors.

    Names, numbers and their kind stay as they are; a weight that two names share is written under both.

    Raises:
        ValueError: nothing that can be converted is there, it holds more than tensors, or the target exists.
    """
    from safetensors.torch import save_file

    if target.exists():
        raise ValueError(f"{target} is there already: name a new folder, or delete it.")
    if not (source / "config.json").is_file():
        raise ValueError(f"{source} has no config.json: name the folder of a saved model.")
    tensors = _read(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        work = Path(folder) / target.name
        work.mkdir()
        for path in sorted(source.iterdir()):
            if path.suffix in KEPT and path.name != SHARDED and path.is_file():
                shutil.copyfile(path, work / path.name)
        save_file(tensors, work / weights.SINGLE, metadata={"format": "pt"})
        wrong = weights.problems(work)
        if wrong:
            raise ValueError(" ".join(wrong))
        work.rename(target)


def _read(source: Path) -> dict[str, Tensor]:
    """Return all tensors of a folder's pickled files, each with memory of its own."""
    if (source / PICKLED).is_file():
        files = [PICKLED]
    elif (source / SHARDED).is_file():
        files = sorted(set(_placed(source).values()))
    else:
        raise ValueError(f"{source} has no {PICKLED} to convert.")
    tensors: dict[str, Tensor] = {}
    for name in files:
        tensors |= _tensors(source / name)
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def _tensors(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        said = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file from elsewhere can fail in any way
        told = " ".join(str(error).split())
        raise ValueError(
            f"{path} cannot be read as weights alone ({type(error).__name__}: {told:.200}): it is damaged or holds "
            "more than tensors, and is not opened in another way."
        ) from error
    if not isinstance(said, dict) or not said or not all(isinstance(v, torch.Tensor) for v in said.values()):
        raise ValueError(f"{path} holds something else than a model's weights by name.")
    return said


def _placed(folder: Path) -> dict[str, Any]:
    """Return which file holds each weight; only files beside the index may be named."""
    try:
        placed = dict(json.loads((folder / SHARDED).read_text())["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder / SHARDED} is damaged: download the model again.") from error
    outside = [name for name in placed.values() if not isinstance(name, str) or Path(name).name != name]
    if outside:
        raise ValueError(f"{folder / SHARDED} names {outside[0]!r}, outside its folder.")
    return placed
