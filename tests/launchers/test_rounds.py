"""Who goes on in a race: decided by hand, by limits, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from kdexp.sweep import rounds
from kdexp.sweep.rounds import Recipe


def recipes(count: int, seeds: int, size: str = "l3") -> list[Recipe]:
    return [Recipe(f"r{n}", size, tuple(f"r{n}-{seed}" for seed in range(seeds))) for n in range(count)]


def race(quality: np.ndarray, failing: frozenset[str] = frozenset()) -> tuple[list[Recipe], dict[str, float | None]]:
    """Carry a race out to its end; ``quality``: (recipes, seeds)."""
    competing, scores = recipes(*quality.shape), dict[str, float | None]()
    while missing := rounds.standing(competing, scores).missing:
        run = missing[0]
        recipe, seed = (int(part) for part in run[1:].split("-"))
        scores[run] = None if run in failing else float(quality[recipe, seed])
    return competing, scores


def test_the_better_half_goes_on_and_two_run_the_last_round():
    quality = np.array([[0.1, 0.9, 0.9], [0.5, 0.4, 0.6], [0.6, 0.6, 0.1], [0.4, 0, 0], [0.3, 0, 0], [0.55, 0.1, 0]])
    competing, scores = race(quality)
    ran = sorted(scores)
    assert ran == ["r0-0", "r1-0", "r1-1", "r1-2", "r2-0", "r2-1", "r2-2", "r3-0", "r4-0", "r5-0", "r5-1"]
    assert len(ran) == rounds.most(6, 3) == 11
    now = rounds.standing(competing, scores)
    assert now.round == 3 and {recipe.name: seeds for recipe, seeds in now.out.items()} == {
        "r0": 1, "r3": 1, "r4": 1, "r5": 2,
    }  # fmt: skip
    won = rounds.chosen(competing, scores)
    assert won is not None and (won[0].name, won[1]) == ("r1", 3), "0.5 on average, r2 0.43"


def test_decisions_do_not_depend_on_the_order_in_which_scores_come():
    quality = np.random.default_rng(3).random((7, 4))
    competing, scores = race(quality)
    rng = np.random.default_rng(4)
    for _ in range(20):
        known = dict(rng.permutation(list(scores.items())).tolist())
        known = {run: float(score) for run, score in known.items()}
        assert rounds.standing(competing, known) == rounds.standing(competing, scores)
        assert rounds.chosen(competing, known) == rounds.chosen(competing, scores)


def test_a_recipe_whose_run_failed_is_out_and_the_others_go_on():
    quality = np.array([[0.9, 0.9], [0.5, 0.5], [0.4, 0.4]])
    competing, scores = race(quality, frozenset({"r0-1"}))
    now, won = rounds.standing(competing, scores), rounds.chosen(competing, scores)
    assert [recipe.name for recipe in now.failed] == ["r0"] and won is not None and won[0].name == "r1"
    competing, scores = race(quality, frozenset({"r0-0", "r1-0", "r2-0"}))
    assert rounds.chosen(competing, scores) is None and not rounds.standing(competing, scores).missing


def test_a_race_that_was_stopped_compares_recipes_over_the_same_seeds():
    competing = recipes(4, 3)
    scores: dict[str, float | None] = {"r1-0": 0.4, "r0-0": 0.3}
    won = rounds.chosen(competing, scores)
    assert won is not None and (won[0].name, won[1]) == ("r1", 1)
    scores |= {"r2-0": 0.6, "r3-0": 0.1, "r1-1": 0.99}  # r2 has no second seed yet
    won = rounds.chosen(competing, scores)
    assert won is not None and (won[0].name, won[1]) == ("r2", 1)
    assert rounds.chosen(competing, {}) is None


@pytest.mark.parametrize("gap", [0.0, 3.0])
def test_a_planted_best_recipe_wins_and_none_is_favoured_where_there_is_none(gap):
    """Six recipes, three seeds, noise of one standard deviation; the planted one is ``gap`` of them better."""
    rng, wins = np.random.default_rng(int(gap)), np.zeros(6)
    for _ in range(600):
        quality = rng.normal(size=(6, 3))
        quality[4] += gap
        won = rounds.chosen(*race(quality))
        assert won is not None
        wins[int(won[0].name[1:])] += 1
    if gap:
        assert wins[4] / 600 > 0.9
    else:
        assert abs(wins / 600 - 1 / 6).max() < 0.06
