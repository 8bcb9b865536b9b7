"""Search spaces as they are written, and what they stand for."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from kdexp.sweep.grammar import default_parser
from kdexp.sweep.search import space
from kdexp.sweep.search.settings import Settings


def read(form: dict[str, Any], command: dict[str, list[str]] | None = None, **intervals: str) -> list[space.Dimension]:
    parsed = {key: default_parser(f"{key}={text}") for key, text in intervals.items()}
    return space.read(form, command or {}, parsed, default_parser)


def lookup(key: str) -> Any:
    return {"task": "rte", "seed": 1}[key]


def test_all_ways_of_writing_a_dimension() -> None:
    found = read(
        {
            "lr": {"low": "1e-5", "high": 1e-3, "log": True},
            "n": {"type": "int", "low": 1, "high": 5, "step": 2},
            "init": ["first", "last"],
            "t": "interval(1,10)",
            "rate": "tag(log,interval(0.1,1))",
            "k": "int(interval(1,4))",
            "s": "1,2,x",
            "r": "range(1,4)",
            "betas": [[0.9, 0.98], [0.9, 0.999]],
        }
    )
    by = {d.name: d for d in found}
    assert (by["lr"].kind, by["lr"].low, by["lr"].log) == ("float", 1e-5, True)
    assert by["n"].values() == [1, 3, 5]
    assert by["init"].choices == ("first", "last")
    assert (by["t"].kind, by["t"].high, by["rate"].log, by["k"].kind) == ("float", 10, True, "int")
    assert by["s"].choices == (1, 2, "x")
    assert by["r"].choices == (1, 2, 3)
    assert space.overrides({"betas": by["betas"].choices[0], "lr": 1e-05}) == {
        "betas": "betas=[0.9,0.98]",
        "lr": "lr=1e-05",
    }


def test_the_command_line_wins() -> None:
    form = {"lr": {"low": 1, "high": 2}, "init": ["first", "last"], "t": [1, 2]}
    found = read(form, {"init": ["init=random"], "t": ["t=3", "t=4"]}, lr="interval(5,6)")
    assert {d.name: d.choices or (d.low, d.high) for d in found} == {"t": (3, 4), "lr": (5.0, 6.0)}


def test_conditions_decide_what_a_trial_has() -> None:
    form = {
        "beta": {"choices": [10, 100], "when": {"objective": "pkd*"}},
        "objective": ["kd", "pkd"],
        "other": {"key": "beta", "choices": [7], "when": {"objective": "kd", "task": ["rte", "qnli"]}},
    }
    dimensions = read(form)
    assert dimensions[0].name == "objective"
    rows = space.combinations(dimensions, lookup)
    assert rows == [
        {"objective": "kd", "other": 7},
        {"objective": "pkd", "beta": 10},
        {"objective": "pkd", "beta": 100},
    ]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(5):
        trial = study.ask()
        chosen = space.choose(trial, dimensions, lookup)
        assert chosen["beta"] in ((7,) if chosen["objective"] == "kd" else (10, 100))
    assert {"objective": "pkd", "beta": 100} in space.examples(dimensions)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"lr": {"low": 1, "hihg": 2}}, "lr.hihg is unknown. Did you mean high?"),
        ({"lr": {"low": 3, "high": 2}}, "low must not be above high"),
        ({"lr": {"low": 0, "high": 2, "log": True}}, "log=true needs low above 0"),
        ({"lr": {"low": "a", "high": 2}}, "needs numbers low and high"),
        ({"lr": 3}, "give a list of choices"),
        ({"n": {"type": "int", "low": 1.5, "high": 2}}, "whole numbers"),
        ({"n": {"type": "integer", "low": 1, "high": 2}}, "choose one of float, int, categorical"),
        ({"i": []}, "at least one value"),
        ({"i": ["a", "a"]}, "each once"),
        ({"seed": [1, 2]}, "hydra.sweeper.seeds=[1,2,3]"),
        ({"a": {"choices": [1], "when": {"b": 1}}, "b": {"choices": [1], "when": {"a": 1}}}, "go in circles"),
    ],
)
def test_spaces_that_cannot_work(form: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        read(form)
    assert message in str(error.value)


def test_a_grid_needs_finite_dimensions() -> None:
    with pytest.raises(ValueError, match="a list of values or a step"):
        space.combinations(read({"lr": {"low": 1, "high": 2}}), lookup)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "tp"}, "choose one of: tpe, gp, cmaes"),
        ({"pruner": "medium"}, "choose one of: none, median"),
        ({"metrics": ("score", "cost.seconds")}, "2 metrics and direction 1"),
        ({"metrics": ("a", "b"), "directions": ("maximize", "minimize"), "pruner": "median"}, "judges one metric"),
        ({"pruner": "wilcoxon"}, "hydra.sweeper.seeds=[1,2,3,4]"),
        ({"directions": ("up",)}, "maximize or minimize"),
        ({"n_trials": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        Settings(**settings)
    assert message in str(error.value)
