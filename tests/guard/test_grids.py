"""Grids that no memory holds: refused by their number, before their points are made."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kdexp.sweep.grammar import MOST_POINTS, expand
from tests.conftest import RunProgram

RANGES = ("range(0,1e12)", "range(0,1000000000000)", "shuffle(range(0,1e12))", "sort(range(0,1e12))", "range(0,inf)")
HUGE = [
    {"params": {"seed": [1], "recipe.epochs": "range(0,1,1e-9)"}},
    {"params": {"seed": "range(0,1000)", "recipe.epochs": "range(1,1001)"}},
    {"zip": [{"seed": "range(0,1e12)", "task": ["rte"]}]},
    {"params": {"seed": "range(0,400)"}, "union": [{"params": {"recipe.epochs": "range(1,201)"}}] * 2},
    {"union": [{"union": [{"params": {"seed": "range(0,1e12)"}}]}]},
    *({"params": {"seed": text}} for text in RANGES),
]


@pytest.mark.parametrize("form", HUGE, ids=str)
def test_what_no_memory_holds_is_refused_at_once(form):
    began = time.monotonic()
    with pytest.raises(ValueError, match=f"more than {MOST_POINTS:,} values|would have [0-9,]+ points"):
        expand(form, {})
    assert time.monotonic() - began < 20


def test_the_command_line_multiplies_too():
    seeds = [f"seed={n}" for n in range(1000)]
    form = {"params": {"recipe.epochs": "range(1,1001)"}}
    with pytest.raises(ValueError, match="would have 1,000,000 points"):
        expand(form, {"seed": seeds})
    with pytest.raises(ValueError, match="2 points.*hydra.sweeper.most_points=2 if you mean it"):
        expand({"params": {"seed": "1,2"}}, {}, most=1)
    assert len(expand({"params": {"seed": "1,2"}}, {}, most=2)) == 2


@pytest.mark.parametrize("text", ["range(1,5,0)", "range(0,nan)", "range(5,1)"])
def test_a_range_of_nothing_is_named(text):
    with pytest.raises(ValueError, match="give finite ends|there is no such value"):
        expand({"params": {"seed": text}}, {})


def test_a_person_may_raise_the_bound(kdexp: RunProgram, tmp_path: Path):
    command = ["-m", "dry=true", "teacher.source=path:/nowhere", "seed=1,2"]
    refused = kdexp([*command, "hydra.sweeper.most_points=1"])
    assert refused.returncode == 2 and "hydra.sweeper.most_points=2 if you mean it" in refused.stderr
    allowed = kdexp([*command, "hydra.sweeper.most_points=2"])  # and refused for what the points are
    assert allowed.returncode == 2 and "most_points" not in allowed.stderr and "/nowhere" in allowed.stderr
    assert not list(tmp_path.iterdir())
