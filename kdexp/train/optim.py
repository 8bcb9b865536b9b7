"""Optimiser and learning rate from a recipe."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kdexp.config.schema import Recipe

DECAY = "asked_decay"
"""Key of a parameter group: the weight decay that the recipe asks for."""


def optimizer(modules: list[nn.Module], recipe: Recipe) -> torch.optim.Optimizer:
    """Make a fused AdamW, or SGD, over all trainable parameters, each once.

    With ``recipe.decay=matrices`` weight decay spares biases and normalisation weights (they are one-dimensional).
    """
    unique: dict[int, nn.Parameter] = {}
    for module in modules:
        unique.update({id(p): p for p in module.parameters() if p.requires_grad})
    spared = [p for p in unique.values() if p.ndim < 2 and recipe.decay == "matrices"]
    kept = {id(p) for p in spared}
    groups = [
        {"params": [p for p in unique.values() if id(p) not in kept], DECAY: float(recipe.weight_decay)},
        {"params": spared, DECAY: 0.0},
    ]
    decaying = [{**group, "weight_decay": group[DECAY]} for group in groups]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            decaying, lr=float(recipe.learning_rate), momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True
        )
    return torch.optim.AdamW(
        decaying,
        lr=float(recipe.learning_rate),
        betas=(recipe.betas[0], recipe.betas[1]),
        eps=float(recipe.eps),
        fused=True,
    )


def step(made: torch.optim.Optimizer, recipe: Recipe, rate: float, number: int = 1) -> None:
    """Make one update.

    SGD adds weight_decay * w to the gradient and steps along momentum * (the former step) + gradient, as in PyTorch.

    Without bias correction (BertAdam) the step is rate * m / (sqrt(v) + eps) on the moments as they are. AdamW makes
    that step with the rate, eps and decay that its own corrections 1 - beta^number turn into the wanted ones.

    Args:
        made: from :func:`optimizer`.
        rate: learning rate of this update.
        number: of this update since the moments were 0, from 1; only matters without bias correction.
    """
    if recipe.optimiser == "sgd":
        for group in made.param_groups:
            group["lr"] = rate
        made.step()
        return
    first, second = (1 - beta**number for beta in recipe.betas)
    scale, root = (1.0, 1.0) if recipe.bias_correction else (first / math.sqrt(second), math.sqrt(second))
    for group in made.param_groups:
        group["lr"], group["eps"] = rate * scale, float(recipe.eps) / root
        group["weight_decay"] = group[DECAY] / scale
    made.step()


def clip(parameters: list[nn.Parameter], recipe: Recipe) -> Tensor:
    """Scale gradients down, in place, to a norm of at most ``recipe.clip``; returns the norm of all of them before.

    Args:
        parameters: those that have a gradient.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if recipe.clip is not None and recipe.clip_by == "global":
        torch.nn.utils.clip_grads_with_norm_(parameters, recipe.clip, norm)
    elif recipe.clip is not None:
        for parameter in parameters:
            torch.nn.utils.clip_grad_norm_([parameter], recipe.clip)
    return norm


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

    Linear warm-up over ``warmup`` (a share of all updates below 1, else a number of updates), then linear decay to 0,
    constant, or lowered by ``milestone_factor`` at each of the ``milestones`` (shares of all updates). All are laid out
    for ``layout_epochs``, where the recipe has them.

    Args:
        span: (i, n): this phase is part i (from 0) of n equal ones under one schedule.
    """
    before, parts = span
    step, total = before * total + step, parts * total
    if recipe.layout_epochs is not None:
        total = total * recipe.layout_epochs // recipe.epochs
    warmup = float(recipe.warmup)
    ramp = warmup * total if warmup < 1 else min(warmup, total)
    peak = float(recipe.learning_rate)
    if step < ramp:
        return peak * (step + 1) / (ramp + 1)
    if recipe.schedule == "constant":
        return peak
    if recipe.schedule == "milestones":
        return peak * recipe.milestone_factor ** sum(step >= round(share * total) for share in recipe.milestones)
    return peak * max(0.0, (total - step) / max(1.0, total - ramp))
