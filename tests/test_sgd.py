"""SGD and milestones of a recipe, by hand; and recipes that do not use them are what they were."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from kdexp.config.schema import LATER, Recipe
from kdexp.train import optim
from tests.test_optim import RATES, train

SGD = {"optimiser": "sgd", "momentum": 0.9, "weight_decay": 0.1, "clip": None}


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", ["all", "matrices"])
def test_sgd_by_hand(nesterov, decay):
    """v = momentum v + g + decay w; w -= rate v, or rate (momentum v + g + decay w) with Nesterov's."""
    before, after, gradients = train(Recipe(**SGD, nesterov=nesterov, decay=decay))
    for name, start in before.items():
        weight, moved = start.clone(), torch.zeros_like(start)
        decayed = 0.1 if decay == "all" or start.ndim > 1 else 0.0
        for rate, gradient in zip(RATES, gradients, strict=True):
            slope = gradient[name] + decayed * weight
            moved = 0.9 * moved + slope
            weight = weight - rate * (0.9 * moved + slope if nesterov else moved)
        torch.testing.assert_close(after[name], weight)


def test_milestones_lower_the_rate():
    recipe = Recipe(learning_rate=0.2, warmup=2, schedule="milestones", milestones=[0.5, 0.75], milestone_factor=0.1)
    rates = [optim.rate(step, 20, recipe) for step in range(20)]
    assert rates[:2] == pytest.approx([0.2 / 3, 0.4 / 3])
    assert (
        rates[2:10] == [0.2] * 8
        and rates[10:15] == pytest.approx([0.02] * 5)
        and rates[15:] == pytest.approx([0.002] * 5)
    )
    parts = [optim.rate(step, 5, recipe, (part, 4)) for part in range(4) for step in range(5)]
    assert parts == rates


def test_recipes_that_do_not_use_it_are_what_they_were():
    plain = Recipe().model_dump()
    assert not LATER & plain.keys() and Recipe.model_validate(plain) == Recipe()
    chosen = Recipe(**SGD, schedule="milestones", milestones=[0.5]).model_dump()
    assert chosen["optimiser"] == "sgd" and chosen["milestones"] == [0.5] and "nesterov" not in chosen
    assert Recipe.model_validate(chosen).model_dump() == chosen


def test_identities_stay():
    """What default recipes were hashed to before there was SGD."""
    from kdexp.config import identity

    science = {"recipe": Recipe().model_dump(), "teacher": {"recipe": Recipe().model_dump()}}
    assert identity.run_id(science) == "746a96cd1313c74aef1d4617d4e939af10ed705ce66e8f35a25b565082823381"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"momentum": 0.9}, "momentum=0.9 with optimiser=adamw: this has no effect"),
        ({**SGD, "betas": [0.9, 0.98]}, "betas=[0.9, 0.98] with optimiser=sgd: this has no effect"),
        ({"optimiser": "sgd", "nesterov": True}, "nesterov=true with momentum=0"),
        ({"milestones": [0.5]}, "milestones=[0.5] with schedule=linear"),
        ({"schedule": "milestones"}, "milestones=[] with schedule=milestones"),
        ({"schedule": "milestones", "milestones": [0.7, 0.5]}, "give them in increasing order"),
        ({"schedule": "milestones", "milestones": [1.5]}, "less than 1"),
        ({"optimiser": "lion"}, "adamw"),
    ],
)
def test_settings_that_do_not_fit(given, said):
    with pytest.raises(ValidationError) as error:
        Recipe(**given)
    assert said in str(error.value)


def test_what_does_not_fit_is_said_with_everything_else(compose, monkeypatch):
    from kdexp.run import spec

    monkeypatch.delenv("KDEXP_DATA", raising=False)
    words = ["teacher=resnet20", "student=resnet8", "init=random", "recipe=cifar", "recipe.momentum=0"]
    run, found = spec.prepare(compose(*words, "recipe.nesterov=true", "student.num_layers=4"))
    assert run is None
    assert any(text.startswith("recipe.nesterov=true with momentum=0: there is no momentum") for text in found), found
    assert any("student.num_layers=4: three stages" in text for text in found), found
