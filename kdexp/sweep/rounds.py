"""Successive halving over seeds: who goes on, who is out, who is chosen. Pure: scores in, decisions out.

In round r every recipe that is left is run with its r-th seed, and then the better half by the mean over the seeds so
far goes on, but never fewer than two before the last round (Jamieson and Talwalkar, AISTATS 2016, with seeds as the
resource). Recipes of one size compete with one another alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean

LAST = 2
"""Recipes that are kept for the last round at the least."""


@dataclass(frozen=True)
class Recipe:
    """What is compared: everything but the seed.

    Attributes:
        name: for people, such as ``kd, last``.
        size: the student's label.
        runs: ids of its runs, one a seed, in the seeds' order.
    """

    name: str
    size: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """Where a race of one size is.

    Attributes:
        left: recipes that are still in it, in their order.
        round: from 0; as many as there are seeds = it is over.
        missing: ids of runs whose scores this round waits for.
        out: recipe -> seeds after which it was left behind.
        failed: recipes that are out because a run of theirs failed.
    """

    left: tuple[Recipe, ...]
    round: int
    missing: tuple[str, ...]
    out: Mapping[Recipe, int]
    failed: tuple[Recipe, ...]


def standing(recipes: Sequence[Recipe], scores: Mapping[str, float | None]) -> Standing:
    """Return where a race is, from the scores of its runs (higher is better; None = the run failed)."""
    left, out, failed, number = list(recipes), dict[Recipe, int](), list[Recipe](), 0
    rounds = max((len(recipe.runs) for recipe in recipes), default=0)
    while number < rounds and left:
        failed += [recipe for recipe in left if _failed(recipe, number, scores)]
        left = [recipe for recipe in left if recipe not in failed]
        missing = [recipe.runs[number] for recipe in left if recipe.runs[number] not in scores]
        if missing:
            return Standing(tuple(left), number, tuple(missing), out, tuple(failed))
        number += 1
        if number < rounds:
            best = _ranked(left, number, scores)[: max(LAST, ceil(len(left) / 2))]
            out |= {recipe: number for recipe in left if recipe not in best}
            left = [recipe for recipe in left if recipe in best]
    return Standing(tuple(left), rounds, (), out, tuple(failed))


def chosen(recipes: Sequence[Recipe], scores: Mapping[str, float | None]) -> tuple[Recipe, int] | None:
    """Return the best recipe and the seeds that its mean is taken over; None = nothing can be said yet.

    Where the race was stopped within a round, recipes are compared over the rounds before it, in which all of them
    took part; within the first one, over those that have a score.
    """
    now = standing(recipes, scores)
    seeds = max(1, now.round)
    able = [recipe for recipe in now.left if all(scores.get(run) is not None for run in recipe.runs[:seeds])]
    return (_ranked(able, seeds, scores)[0], seeds) if able else None


def mean(recipe: Recipe, seeds: int, scores: Mapping[str, float | None]) -> float:
    """Return the mean score of a recipe over its first seeds."""
    return fmean(score for run in recipe.runs[:seeds] if (score := scores[run]) is not None)


def most(recipes: int, seeds: int) -> int:
    """Return how many runs a race takes in which none fails."""
    total = 0
    for _ in range(seeds):
        total += recipes
        recipes = min(recipes, max(LAST, ceil(recipes / 2)))
    return total


def _failed(recipe: Recipe, number: int, scores: Mapping[str, float | None]) -> bool:
    return any(run in scores and scores[run] is None for run in recipe.runs[: number + 1])


def _ranked(recipes: Sequence[Recipe], seeds: int, scores: Mapping[str, float | None]) -> list[Recipe]:
    """Return recipes, the best first; of equal ones, the one that was written first."""
    return sorted(recipes, key=lambda recipe: -mean(recipe, seeds, scores))
