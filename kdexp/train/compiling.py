"""Compilation of the step, and the estimate by which a CPU decides for or against it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from kdexp.config.schema import Config, Recipe
from kdexp.models import capture
from kdexp.models.families import base as families
from kdexp.tasks.base import Dataset
from kdexp.train import optim
from kdexp.train.step import run_step

GRAPHS = "reduce-overhead"
"""Mode of compilation that records CUDA graphs: one for each width of a batch, replayed without the CPU's help."""

_COMPILED: dict[tuple[str, str, str], Any] = {}


def compiled_step(device: str, mode: str = "default") -> Any:
    """Return the compiled :func:`~kdexp.train.step.run_step`: one a process, so that a grid's runs share its graphs."""
    return _compiled(run_step, device, mode)


def compiled_teacher(device: str, mode: str = "default") -> Any:
    """Return the compiled :func:`~kdexp.models.capture.forward`, for a teacher that is run on every batch."""
    return _compiled(capture.forward, device, mode)


def _compiled(function: Callable[..., Any], device: str, mode: str) -> Any:
    """Compile a function into one graph; a break is an error."""
    import torch
    import torch._dynamo
    import torch._inductor.config as inductor

    torch._dynamo.config.recompile_limit = 64  # each thread has settings of its own, and each run of a cohort a thread
    torch._dynamo.config.optimize_ddp = False  # it would cut the graph where gradients are exchanged
    inductor.fallback_random = device == "cpu"
    key = (function.__qualname__, device, mode)
    if key not in _COMPILED:
        _COMPILED[key] = torch.compile(function, fullgraph=True, dynamic=True, mode=mode)
    return _COMPILED[key]


def new_pass(mode: str) -> Callable[[], None]:
    """Return what must be called before a batch's first forward pass: recorded graphs may use their memory again."""
    if mode != GRAPHS:
        return lambda: None
    import torch

    return torch.compiler.cudagraph_mark_step_begin


def flops(model: nn.Module, config: Config, data: Dataset, recipe: Recipe, live: float = 1) -> float:
    """Estimate a phase's floating-point operations: 6 a weight and token for the student, 2 for a teacher beside it.

    Args:
        live: share of the batches that a teacher is run on.
    """
    small = sum(p.numel() for p in families.of(model).layers(model).parameters())
    teacher = config.teacher
    width, inner = teacher.hidden_size or 0, teacher.intermediate_size or 0
    big = live * (teacher.num_layers or 0) * (4 * width**2 + 2 * width * inner)
    examples = min(len(data), recipe.examples or len(data))
    share = optim.updates(examples, recipe) * recipe.batch_size / max(1, len(data))
    return float(share * data.costs.sum() * (6 * small + 2 * big))
