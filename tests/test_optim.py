"""The optimiser of a recipe against formulas written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdexp.config.schema import Recipe
from kdexp.train import optim

RATES = (0.02, 0.05, 0.03, 0.01)


def made(recipe: Recipe) -> tuple[nn.Linear, torch.optim.AdamW, list[dict[str, torch.Tensor]]]:
    """A small model, its optimiser, and the gradients of four updates."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    gradients = [{n: torch.randn_like(p) * 3 for n, p in model.named_parameters()} for _ in RATES]
    return model, optim.optimizer([model], recipe), gradients


def train(recipe: Recipe) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    model, optimizer, gradients = made(recipe)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for number, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
        for name, parameter in model.named_parameters():
            parameter.grad = gradient[name].clone()
        optim.clip(list(model.parameters()), recipe)
        optim.step(optimizer, recipe, rate, number)
    return before, {n: p.detach() for n, p in model.named_parameters()}, gradients


def by_hand(weights, gradients, recipe, *, decayed, corrected, clipped):
    """Adam with decoupled weight decay, as Loshchilov and Hutter write it; without corrections it is BertAdam."""
    first = {n: torch.zeros_like(w) for n, w in weights.items()}
    second = {n: torch.zeros_like(w) for n, w in weights.items()}
    weights = {n: w.clone() for n, w in weights.items()}
    one, two = recipe.betas
    for number, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), 1):
        gradient = clipped(gradient)
        for n in weights:
            first[n] = one * first[n] + (1 - one) * gradient[n]
            second[n] = two * second[n] + (1 - two) * gradient[n] ** 2
            m, v = first[n], second[n]
            if corrected:
                m, v = m / (1 - one**number), v / (1 - two**number)
            decay = recipe.weight_decay if n in decayed else 0.0
            weights[n] = weights[n] - rate * (m / (v.sqrt() + recipe.eps) + decay * weights[n])
    return weights


def whole(gradient):
    norm = torch.cat([g.flatten() for g in gradient.values()]).norm()
    return {n: g * min(1.0, 1.0 / (norm + 1e-6)) for n, g in gradient.items()}


def each(gradient):
    return {n: g * min(1.0, 1.0 / (g.norm() + 1e-6)) for n, g in gradient.items()}


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize(("decay", "decayed"), [("matrices", {"weight"}), ("all", {"weight", "bias"})])
@pytest.mark.parametrize(("clip_by", "clipped"), [("global", whole), ("tensor", each)])
def test_updates_are_those_of_the_formulas(corrected, decay, decayed, clip_by, clipped):
    recipe = Recipe(
        eps=1e-3, weight_decay=0.3, clip=1.0, bias_correction=corrected, decay=decay, clip_by=clip_by, betas=[0.8, 0.95]
    )
    before, after, gradients = train(recipe)
    expected = by_hand(before, gradients, recipe, decayed=decayed, corrected=corrected, clipped=clipped)
    for name, value in after.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9)


def test_without_clipping_gradients_stay():
    model, _, gradients = made(Recipe(clip=None))
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[0][name].clone()
    norm = optim.clip(list(model.parameters()), Recipe(clip=None))
    assert norm == pytest.approx(float(torch.cat([g.flatten() for g in gradients[0].values()]).norm()))
    assert all(torch.equal(p.grad, gradients[0][n]) for n, p in model.named_parameters())
