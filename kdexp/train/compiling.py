"""Compilation of the step, and the estimate by which a CPU decides for or against it."""

from __future__ import annotations

from typing import Any

from torch import nn

from kdexp.config.schema import Config, Recipe
from kdexp.models.families import base as families
from kdexp.tasks.base import Dataset
from kdexp.train import optim
from kdexp.train.step import run_step

_COMPILED: dict[str, Any] = {}


def compiled_step(device: str) -> Any:
    """Return the compiled :func:`~kdexp.train.step.run_step`: one a process, so that a grid's runs share its graphs."""
    import torch
    import torch._dynamo
    import torch._inductor.config as inductor

    torch._dynamo.config.recompile_limit = 64  # each thread has settings of its own, and each run of a cohort a thread
    inductor.fallback_random = device == "cpu"
    if device not in _COMPILED:
        _COMPILED[device] = torch.compile(run_step, fullgraph=True, dynamic=True)
    return _COMPILED[device]


def flops(model: nn.Module, config: Config, data: Dataset, recipe: Recipe) -> float:
    """Estimate a phase's floating-point operations: 6 a weight and token for the student, 2 for a teacher beside it."""
    small = sum(p.numel() for p in families.of(model).layers(model).parameters())
    teacher = config.teacher
    width, inner = teacher.hidden_size or 0, teacher.intermediate_size or 0
    big = (teacher.num_layers or 0) * (4 * width**2 + 2 * width * inner)
    examples = min(len(data), recipe.examples or len(data))
    share = optim.updates(examples, recipe) * recipe.batch_size / max(1, len(data))
    return float(share * data.costs.sum() * (6 * small + 2 * big))
