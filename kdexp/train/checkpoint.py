"""Everything that continuing an interrupted phase needs, as one object on disk.

Batch order, dropout and learning rate are pure functions of (seed, step), so weights, optimiser moments, the sums of
the next line of metrics and a few counters are all there is. Tensors go to safetensors, counters to JSON, the best
weights beside them; the folder appears in one rename, and says what its files' checksums are.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdexp.common import files
from kdexp.common.files import Damaged

log = logging.getLogger("kdexp")
STATE, TENSORS, BEST = "state.json", "state.safetensors", "best.safetensors"
SHAPE = {"progress": dict, "sha256": str}


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
        best_sha256: checksum of the best weights' file; None = there is none, or an older kdexp wrote it.
        unlogged: updates since the last line of metrics.
        rate: learning rate of the last update.
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
    best_sha256: str | None = None
    unlogged: int = 0
    rate: float = 0.0


def save(
    folder: Path,
    model: nn.Module,
    parts: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    sums: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a checkpoint; an older one is replaced only when the new one is complete.

    The best weights (``best.safetensors`` beside ``folder``) become part of it: what is written there later belongs to
    a later checkpoint.

    Args:
        sums: what the next line of metrics is the mean of.
    """
    tensors = state(model, parts, optimizer) | {f"sums.{k}": v for k, v in (sums or {}).items()}
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    _write(new / TENSORS, _plain(tensors))
    if progress.best_sha256 is not None:
        _link(folder.with_name(BEST), new / BEST)
    files.write_record(new / STATE, {"progress": asdict(progress), "sha256": files.checksum(new / TENSORS)})
    files.sync(new)
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def load(
    folder: Path,
    model: nn.Module,
    parts: nn.Module,
    optimizer: torch.optim.Optimizer,
    sums: dict[str, torch.Tensor] | None = None,
) -> Progress:
    """Restore a checkpoint in place, or return a fresh start if there is none.

    A damaged one is set aside with a warning, and the phase starts afresh.

    Args:
        sums: gets what the next line of metrics is the mean of.

    Raises:
        ValueError: the checkpoint belongs to another model.
    """
    from safetensors.torch import load_file

    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():
        os.replace(old, folder)
    try:
        progress = _checked(folder)
    except Damaged as error:
        log.warning("%s: the checkpoint is now %s, and this phase starts again", error, files.set_aside(folder))
        progress = None
    if progress is None:
        return Progress()
    path = folder / TENSORS
    tensors = load_file(path)
    missing = restore(tensors, model, parts, optimizer)
    if missing:
        raise ValueError(f"{path} has no weights for {missing[:5]}: it belongs to another model.")
    if sums is not None:
        sums.update(_below(tensors, "sums."))
    if progress.best_sha256 is not None:  # not that of a later evaluation, which comes again
        folder.with_name(BEST).unlink(missing_ok=True)
        _link(folder / BEST, folder.with_name(BEST))
    return progress


def state(model: nn.Module, parts: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return all tensors of a student in training, by name."""
    return {f"model.{k}": v for k, v in _unique(model).items()} | _around(parts, optimizer)


def restore(
    tensors: dict[str, torch.Tensor], model: nn.Module, parts: nn.Module, optimizer: torch.optim.Optimizer
) -> list[str]:
    """Put what :func:`state` returned back in place; returns the model's weights that are not among them."""
    weights = _below(tensors, "model.")
    model.load_state_dict(weights, strict=False)
    missing = sorted(set(_unique(model)) - set(weights))
    if not missing:
        _put_around(tensors, parts, optimizer)
    return missing


def hand_on(path: Path, parts: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write what the next part of one schedule needs beside the weights: moments, and what is learned beside."""
    _write(path, _plain(_around(parts, optimizer)))


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


def _checked(folder: Path) -> Progress | None:
    """Read a checkpoint's counters and compare its files with their checksums; None if there is no checkpoint.

    Raises:
        Damaged: a file is missing, or not what was written.
    """
    state = files.read_record(folder / STATE, SHAPE)
    if state is None:
        if folder.exists():
            raise Damaged(folder / STATE, "it is missing")
        return None
    try:
        progress = Progress(**state["progress"])
    except TypeError as error:
        raise Damaged(folder / STATE, str(error)) from error
    check(folder / TENSORS, state["sha256"])
    if progress.best_sha256 is not None:
        check(folder / BEST, progress.best_sha256)
    return progress


def check(path: Path, sha256: str) -> None:
    """Compare a file with the checksum that was noted when it was written.

    Raises:
        Damaged: it is missing, or differs.
    """
    if not path.is_file():
        raise Damaged(path, "it is missing")
    if files.checksum(path) != sha256:
        raise Damaged(path, "its sha256 is not the one noted when it was written")


def save_weights(path: Path, model: nn.Module) -> str:
    """Write a model's weights atomically (safetensors, a shared one once); returns the file's sha256."""
    _write(path, {k: v.detach().cpu().contiguous() for k, v in _unique(model).items()})
    return files.checksum(path)


def load_weights(path: Path, model: nn.Module) -> None:
    """Load what :func:`save_weights` wrote, in place."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(path), strict=False)


def _write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    with files.fresh(path, sum(tensor.nbytes for tensor in tensors.values())) as aside:
        save_file(tensors, aside)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; a copy where the file system knows no second names."""
    try:
        os.link(source, target)
    except OSError:
        with files.fresh(target, source.stat().st_size) as aside:
            shutil.copyfile(source, aside)


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
