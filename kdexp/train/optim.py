"""Optimiser and learning rate from a recipe."""

from __future__ import annotations

import math

import torch
from torch import nn

from kdexp.config.schema import Recipe


def optimizer(modules: list[nn.Module], recipe: Recipe) -> torch.optim.AdamW:
    """Make a fused AdamW over all trainable parameters, each once.

    Weight decay acts on matrices only (biases and normalisation weights are one-dimensional).
    """
    unique: dict[int, nn.Parameter] = {}
    for module in modules:
        unique.update({id(p): p for p in module.parameters() if p.requires_grad})
    decayed = [p for p in unique.values() if p.ndim >= 2]
    plain = [p for p in unique.values() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": float(recipe.weight_decay)},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=float(recipe.learning_rate),
        betas=(recipe.betas[0], recipe.betas[1]),
        eps=float(recipe.eps),
        fused=True,
    )


def updates(examples: int, recipe: Recipe) -> int:
    """Return the number of updates of a phase over ``examples`` training examples."""
    if recipe.steps is not None:
        return int(recipe.steps)
    return int(recipe.epochs) * math.ceil(examples / int(recipe.batch_size))


def decay(steps: int, total: int, recipe: Recipe, span: tuple[int, int] = (0, 1)) -> float:
    """Return what ``steps`` of ``total`` updates leave of a weight that has no gradient: AdamW's decay alone.

    Args:
        span: as of :func:`rate`.
    """
    return math.prod(1 - rate(step, total, recipe, span) * float(recipe.weight_decay) for step in range(steps))


def rate(step: int, total: int, recipe: Recipe, span: tuple[int, int] = (0, 1)) -> float:
    """Return the learning rate of update ``step`` (from 0) of ``total``: a pure function, so resuming needs no state.

    Linear warm-up over ``warmup`` (a share of all updates below 1, else a number of updates), then linear decay to 0
    or constant.

    Args:
        span: (i, n): this phase is part i (from 0) of n equal ones under one schedule.
    """
    before, parts = span
    step, total = before * total + step, parts * total
    warmup = float(recipe.warmup)
    ramp = warmup * total if warmup < 1 else min(warmup, total)
    peak = float(recipe.learning_rate)
    if step < ramp:
        return peak * (step + 1) / (ramp + 1)
    if recipe.schedule == "constant":
        return peak
    return peak * max(0.0, (total - step) / max(1.0, total - ramp))
