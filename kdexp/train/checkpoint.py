"""Everything that continuing an interrupted phase needs, as one object on disk.

Batch order, dropout and learning rate are pure functions of (seed, step), so weights, optimiser moments and a few
counters are all there is. Tensors go to safetensors, counters to JSON; the folder appears in one rename.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdexp.common import files


@dataclass
class Progress:
    """Where a student stands.

    Attributes:
        step: updates done.
        epoch: epoch under way (from 0).
        batch: batches of this epoch done.
        best_score: best selection score so far, None before the first evaluation.
        best: what was measured at the best evaluation.
        waiting: evaluations since then.
        stopped: ended early.
        history: one entry an evaluation.
        seconds: training time so far, over all attempts.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_score: float | None = None
    best: dict[str, Any] = field(default_factory=dict)
    waiting: int = 0
    stopped: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def save(
    folder: Path, model: nn.Module, parts: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write a checkpoint; an older one is replaced only when the new one is complete."""
    from safetensors.torch import save_file

    tensors = {f"model.{k}": v for k, v in _unique(model).items()} | _around(parts, optimizer)
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_file(_plain(tensors), new / "state.safetensors")
    files.sync(new / "state.safetensors")
    scalars = {"progress": asdict(progress), "sha256": files.checksum(new / "state.safetensors")}
    files.write_json(new / "state.json", scalars)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, model: nn.Module, parts: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Restore a checkpoint in place, or return a fresh start if there is none.

    Raises:
        ValueError: the checkpoint is damaged; it is named.
    """
    from safetensors.torch import load_file

    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():
        os.replace(old, folder)
    scalars = files.read_json(folder / "state.json")
    if scalars is None:
        return Progress()
    path = folder / "state.safetensors"
    if not path.is_file() or files.checksum(path) != scalars["sha256"]:
        raise ValueError(f"{path} is damaged: delete the folder {folder} to start this phase again.")
    tensors = load_file(path)
    model.load_state_dict(_below(tensors, "model."), strict=False)
    missing = set(_unique(model)) - set(_below(tensors, "model."))
    if missing:
        raise ValueError(f"{path} has no weights for {sorted(missing)[:5]}: it belongs to another model.")
    _put_around(tensors, parts, optimizer)
    return Progress(**scalars["progress"])


def hand_on(path: Path, parts: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write what the next part of one schedule needs beside the weights: moments, and what is learned beside."""
    from safetensors.torch import save_file

    save_file(_plain(_around(parts, optimizer)), path)


def take_over(path: Path, parts: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load what :func:`hand_on` wrote, in place."""
    from safetensors.torch import load_file

    _put_around(load_file(path), parts, optimizer)


def _around(parts: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the state beside a model's own weights as named tensors."""
    tensors = {f"parts.{k}": v for k, v in parts.state_dict().items()}
    for index, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            tensors[f"optimizer.{index}.{key}"] = value if torch.is_tensor(value) else torch.tensor(value)
    return tensors


def _put_around(tensors: dict[str, torch.Tensor], parts: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load what :func:`_around` named, in place."""
    parts.load_state_dict(_below(tensors, "parts."))
    state: dict[int, dict[str, Any]] = {}
    for name, value in _below(tensors, "optimizer.").items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _plain(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a model's weights atomically (safetensors, a shared one once)."""
    from safetensors.torch import save_file

    new = path.with_name(path.name + ".new")
    save_file({k: v.detach().cpu().contiguous() for k, v in _unique(model).items()}, new)
    files.sync(new)
    os.replace(new, path)


def load_weights(path: Path, model: nn.Module) -> None:
    """Load what :func:`save_weights` wrote, in place."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(path), strict=False)


def _unique(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's weights and buffers, a shared one under its first name only."""
    seen: set[int] = set()
    out = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            out[name] = tensor
    return out


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
