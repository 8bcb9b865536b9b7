"""What a grid could decide before it is run, asked of the points that the program would make."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import plan, sight
from analysis.collect import collect
from analysis.power import Design, minimum_effect
from tests.analysis.program import Program
from tests.analysis.synthetic import write_points, write_run


def points(program: Program, seeds: int = 3, objectives: tuple[str, ...] = ("kd", "finetune", "att_kl")) -> list[Any]:
    for objective in objectives:
        for init in ("first", "spread"):
            for seed in range(1, seeds + 1):
                program.run("task=sst2", f"objective={objective}", f"init={init}", seed=seed, scores={"accuracy": 0.0})
    return [
        {"labels": one["labels"], "science": one["science"], "seed": one["run"]["seed"]} for one in program.results
    ]  # fmt: skip


def test_claims_see_what_their_design_sees(tmp_path: Path) -> None:
    found = {one.id: one for one in sight.sights(points(Program(tmp_path)), "quickstart", 1.2)}
    helps = found["distilling_helps"]  # averaged over two starts: two cells on each side
    by_hand = minimum_effect(Design(3, (1.2,), 6, (0.5, 0.5, -0.5, -0.5), family=2))
    assert (helps.sees, helps.primary, helps.tasks) == (pytest.approx(by_hand), True, ("sst2",))
    gap = found["howto.att_kl_steadier_than_kd"]
    assert gap.sees == pytest.approx(minimum_effect(Design(3, (1.2,), 6, (1.0, -1.0, -1.0, 1.0))))
    other = found["howto.kd_as_good_as_att_kl.first"]
    assert not other.primary and other.sees == pytest.approx(minimum_effect(Design(3, (1.2,), 6)))
    assert "ted.over_finetune" not in found
    assert next(iter(found.values())).primary


def test_a_study_that_cannot_decide_says_what_could(tmp_path: Path) -> None:
    few, many = (sight.sights(points(Program(tmp_path), seeds), "mine", 1.0) for seeds in (2, 3))
    one = next(sight for sight in few if sight.id == "distilling_helps")
    assert math.isinf(one.sees) and "a verdict needs 3 seeds" in str(one)
    two = next(sight for sight in many if sight.id == "distilling_helps")
    assert two.needed == one.needed and two.needed is not None and two.needed > 3
    assert (
        str(two) == f"distilling_helps (exploratory, sst2): sees {two.sees:.1f} points; 1 would need {two.needed} seeds"
    )
    enough = sight.sights(points(Program(tmp_path), two.needed), "mine", 1.0)
    assert next(sight for sight in enough if sight.id == "distilling_helps").sees <= 1.0


def test_the_spread_comes_from_an_earlier_study(tmp_path: Path) -> None:
    program, rng = Program(tmp_path), np.random.default_rng(0)
    for objective in ("kd", "finetune", "att_kl", "hid_seq"):
        for seed in range(1, 9):
            score = 0.8 + 0.02 * seed + rng.normal(0, 0.01)  # what seeds have in common is no spread
            program.run("task=sst2", f"objective={objective}", seed=seed, scores={"accuracy": score})
    for result in program.results:
        write_run(tmp_path, result)
    write_points(tmp_path, "s", program.results)
    std = sight.spread(collect("s", tmp_path, "folders"))
    assert std == {"sst2": pytest.approx(1.0, abs=0.4)}
    assert sight.sights(points(Program(tmp_path)), "mine", std)[0].sees > 0
    with pytest.raises(ValueError, match="no positive value for sst2"):
        sight.sights(points(Program(tmp_path)), "mine", {"rte": 1.0})


def test_a_grid_without_finished_runs_is_told_in_spreads(tmp_path: Path) -> None:
    head, *lines = plan.outlook(points(Program(tmp_path)), "quickstart", tmp_path)
    assert "in standard deviations of a run, which is not known" in head and "runs of sst2" in head
    by_hand = minimum_effect(Design(3, (1.0,), 6, (0.5, 0.5, -0.5, -0.5), family=2))
    assert f"         distilling_helps (sst2): sees {by_hand:.1f}" in lines and len(lines) == 2
    assert plan.outlook(points(Program(tmp_path)), "mine", tmp_path) == []


def test_a_grid_is_judged_by_the_spread_of_finished_runs_beside_it(tmp_path: Path) -> None:
    program, rng = Program(tmp_path), np.random.default_rng(0)
    for objective in ("kd", "finetune", "att_kl", "hid_seq"):
        for seed in range(1, 6):
            program.run(
                "task=sst2", f"objective={objective}", seed=seed, scores={"accuracy": 0.8 + rng.normal(0, 0.02)}
            )
    for result in program.results:
        write_run(tmp_path, result)
    write_points(tmp_path, "s", program.results)
    std = sight.spread(collect("s", tmp_path, "folders"))["sst2"]
    head, *lines = plan.outlook(points(Program(tmp_path)), "quickstart", tmp_path)
    assert f"sst2 {std:.1f} (from s)" in head
    wanted = [str(one) for one in sight.sights(points(Program(tmp_path)), "quickstart", std) if one.primary]
    assert lines == [f"         {line}" for line in wanted]
    assert "1.5 would need" in lines[0]
