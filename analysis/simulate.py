"""``kdexp simulate``: how often the verdicts and intervals of this folder are wrong, and what they find.

Studies are drawn with an effect that is known; the functions that judge real studies judge them. Rates are shares of
``repeats`` studies; their standard error is at most ``50 / sqrt(repeats)`` points, a fifth of it near 5 %.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from kdexp.common.arguments import whole

from . import cli, crossed, gate, stats, verdicts
from .contrasts import Block, Pool, contrast, pair, tie_groups
from .estimate import Estimate

Array = np.ndarray
Events = dict[str, bool | None]  # None: this study says nothing of the kind (no interval), and does not count
ARMS = 6
EFFECT, DELTA = 1.5, 1.5  # standard deviations of a run
DESIGNS = tuple((seeds, tasks) for seeds in (2, 3, 5, 8) for tasks in (1, 2, 7))
SAMPLES = tuple((seeds, examples) for seeds in (2, 3, 5, 10) for examples in (71, 277, 1043))
ALONE = np.array([1.0, -1.0, 0.0, 0.0, 0.0, 0.0])
GAP = np.array([1.0, -1.0, -1.0, 1.0, 0.0, 0.0])


def study(
    rng: np.random.Generator,
    seeds: int,
    tasks: int,
    *,
    shift: dict[int, float] | None = None,
    spread: Callable[[], Array] | None = None,
    shared: float = 0.0,
) -> list[Pool]:
    """Scores of :data:`ARMS` arms on every task: ``shift`` by arm, standard deviations 1 or ``spread`` (arms,).

    ``shared``: standard deviation of what all arms of a seed have in common.
    """
    out = []
    for _ in range(tasks):
        scores = rng.normal(size=(ARMS, seeds)) * (spread()[:, None] if spread else 1.0)
        scores += shared * rng.normal(size=(1, seeds))
        for arm, by in (shift or {}).items():
            scores[arm] += by
        out.append(Pool(scores))
    return out


def _estimate(pools: list[Pool], weights: Array = ALONE) -> Estimate:
    return contrast([Block(pool, weights) for pool in pools])


def _said(*parts: Estimate, above: float = 0.0, delta: float = math.nan, family: int = 1) -> str:
    trial = verdicts.Trial(parts, above, delta)
    return verdicts.judge([trial] + [None] * (family - 1), family)[0]


def _decided(word: str) -> bool:
    return word in ("supported", "refuted")


def nothing(rng: np.random.Generator, seeds: int, tasks: int) -> Events:
    """All arms alike: every decision is wrong, but "negligible"."""
    pools = study(rng, seeds, tasks)
    pairs = [pair(pools, a, b) for a, b in ((0, 1), (1, 2), (2, 3), (4, 5))]
    trials = [verdicts.Trial((one,), 0.0, DELTA) for one in pairs if one]
    best = int(np.argmax(np.mean([pool.scores.mean(axis=1) for pool in pools], axis=0)))
    others = [pair(pools, best, other) for other in range(ARMS) if other != best]
    return {
        "a contrast decided": _decided(_said(trials[0].parts[0])),
        "a chain of two steps decided": _decided(_said(*(one.parts[0] for one in trials[:2]))),
        "any of four primary claims decided": any(map(_decided, verdicts.judge(trials, 4))),
        "any two rows in different tie groups": len(set(tie_groups(pools))) > 1,
        "a row in bold": all(one is not None and one.p < 0.05 for one in others),
    }


def unequal(rng: np.random.Generator, seeds: int, tasks: int) -> Events:
    """All arms alike, but their spread differs by factors of e^(0.4 z), or seeds have something in common."""
    pools = study(rng, seeds, tasks, spread=lambda: np.exp(0.4 * rng.normal(size=ARMS)))
    together = study(rng, seeds, tasks, shared=1.0)
    return {
        "arms of unequal spread: a contrast decided": _decided(_said(_estimate(pools))),
        "seeds with a common part: a contrast decided": _decided(_said(_estimate(together))),
    }


def noisy(rng: np.random.Generator, seeds: int, tasks: int) -> Events:
    """All arms alike, the two compared vary twice as much as the four others: the worst case of a common error."""
    pools = study(rng, seeds, tasks, spread=lambda: np.array([2.0, 2.0, 1.0, 1.0, 1.0, 1.0]))
    return {"both arms twice as noisy as the rest: a contrast decided": _decided(_said(_estimate(pools)))}


def many(rng: np.random.Generator, seeds: int, tasks: int) -> Events:
    """A long table whose rows are alike, but for their spread (factors of e^(0.4 z)): the limit of its letters."""
    spread = np.exp(0.4 * rng.normal(size=(2 * ARMS, 1)))
    pools = [Pool(spread * rng.normal(size=(2 * ARMS, seeds))) for _ in range(tasks)]
    name = f"{2 * ARMS} rows of unequal spread: any two in different tie groups"
    return {name: len(set(tie_groups(pools))) > 1}


def steadier(rng: np.random.Generator, seeds: int, tasks: int) -> Events:
    """No start matters, but one method has a third of the other's noise: is it called the steadier one?"""
    pools = study(rng, seeds, tasks, spread=lambda: np.array([1.0, 0.3, 1.0, 0.3, 1.0, 1.0]))
    return {"a steadier method, by its noise alone: decided": _decided(_said(_estimate(pools, GAP)))}


def edges(rng: np.random.Generator, seeds: int, tasks: int) -> Events:
    """Effects exactly at the margin of "at least as good", and exactly as large as "too small to matter" ends."""
    worse, large = study(rng, seeds, tasks, shift={0: -1.0}), study(rng, seeds, tasks, shift={0: DELTA})
    return {
        "worse by exactly the margin: decided": _decided(_said(_estimate(worse), above=-1.0)),
        "as large as delta: negligible": _said(_estimate(large), delta=DELTA) == "negligible",
    }


def gated(rng: np.random.Generator, seeds: int, tasks: int) -> Events:
    """All arms alike and where the signal gate opens for some tasks: it must not make a verdict likelier."""
    floor, error = 50.0, 2.0
    pools = study(rng, seeds, tasks, shift=dict.fromkeys(range(ARMS), floor + 2 * error - 1.3 / math.sqrt(seeds)))
    open_ = []
    for pool in pools:
        arms = {str(arm): float(score) for arm, score in enumerate(pool.scores.mean(axis=1))}
        if not gate.Signal("t", "accuracy", floor, floor + 20, error, arms).why(("0", "1")):
            open_.append(pool)
    return {
        "arms at the edge of the signal gate: a contrast decided": bool(open_) and _decided(_said(_estimate(open_)))
    }


def effect(rng: np.random.Generator, seeds: int, tasks: int) -> Events:
    """Arm 0 is better by :data:`EFFECT`, in a gap by twice that; or nothing is, and the study should say so."""
    pools = study(rng, seeds, tasks, shift={0: EFFECT})
    gap = study(rng, seeds, tasks, shift={0: 2 * EFFECT})
    scores = [pool.scores for pool in pools]
    alone = stats.mean_over_tasks([one[0] - one[1] for one in scores])
    return {
        "an effect of 1.5 supported": _said(_estimate(pools)) == "supported",
        "the same as one of four primary claims": _said(_estimate(pools), family=4) == "supported",
        "the same by a paired t-test of these two arms": _said(alone) == "supported",
        "a gap of 3 supported": _said(_estimate(gap, GAP)) == "supported",
        "an effect of 0 called negligible (delta 1.5)": _said(
            _estimate(study(rng, seeds, tasks)), delta=DELTA
        ) == "negligible",
    }  # fmt: skip


WRONG = (nothing, unequal, steadier, edges, gated)
LIMITS = (noisy, many)
FOUND = (effect,)


@dataclass(frozen=True)
class Answers:
    """Correctness (x100) of two methods, (seeds, examples) each, and the true difference for each of the questions."""

    d: Array
    seeds: float
    examples: float
    both: float


def answers(
    rng: np.random.Generator, seeds: int, examples: int, *, of_seed: float = 0.1, method: float = 0.5
) -> Answers:
    """Two methods of one quality answer the same examples, some of which suit one of them more.

    An answer is right with probability Phi(1.5 + example + method's example + seed), standard normal quantities times
    1.2, ``method`` and ``of_seed``; about 12 % of answers differ.
    """
    level, hard = 1.5, 1.2 * rng.normal(size=examples)
    right, given_examples, given_seeds = [], [], []
    for _ in range(2):
        known = level + hard + method * rng.normal(size=examples)
        skill = of_seed * rng.normal(size=seeds)
        chance = special.ndtr(known[None, :] + skill[:, None])
        right.append(100.0 * (rng.random((seeds, examples)) < chance))
        given_examples.append(100 * special.ndtr(known / math.sqrt(1 + of_seed**2)).mean())
        given_seeds.append(100 * special.ndtr((level + skill) / math.sqrt(1 + 1.2**2 + method**2)).mean())
    return Answers(right[0] - right[1], given_examples[0] - given_examples[1], given_seeds[0] - given_seeds[1], 0.0)


def questions(rng: np.random.Generator, seeds: int, examples: int) -> Events:
    """Whether each interval holds the truth of its question; the last two are what is often done instead."""
    drawn = answers(rng, seeds, examples)
    first = crossed.new_seeds([drawn.d])
    naive = stats.mean_over_tasks([drawn.d.ravel()])
    one = answers(rng, 1, examples, of_seed=0.0)
    return {
        "these examples, new seeds": _holds(first, drawn.seeds),
        "these runs, new examples": _holds(crossed.new_examples([drawn.d]), drawn.examples),
        "new seeds and new examples": _holds(crossed.new_seeds_and_examples(first, [drawn.d]), drawn.both),
        "these runs, new examples, one seed": _holds(crossed.new_examples([one.d]), one.examples),
        "McNemar's test, one seed, no difference: p >= 0.05": crossed.mcnemar(one.d[0] > 0, one.d[0] < 0) >= 0.05,
        "instead: seeds alone, asked about both": _holds(first, drawn.both),
        "instead: answers as if independent, asked about both": _holds(naive, drawn.both),
    }


def _holds(one: Estimate, truth: float) -> bool | None:
    """Whether an interval holds the truth; None where there is none (no spread between seeds)."""
    return one.low <= truth <= one.high if math.isfinite(one.low) else None


def rates(
    scenario: Callable[[np.random.Generator, int, int], Events], seeds: int, second: int, repeats: int, seed: int = 0
) -> dict[str, float]:
    """Share of ``repeats`` drawn studies in which each event of a scenario happened."""
    rng = np.random.default_rng([seed, seeds, second, zlib.crc32(scenario.__name__.encode())])
    drawn = [scenario(rng, seeds, second) for _ in range(repeats)]
    told = {name: [event for one in drawn if (event := one[name]) is not None] for name in drawn[0]}
    return {name: sum(events) / len(events) if events else math.nan for name, events in told.items()}


def events(scenarios: tuple, designs: tuple[tuple[int, int], ...], repeats: int) -> dict[str, list[float]]:
    """Shares by event and design."""
    out: dict[str, list[float]] = {}
    for scenario in scenarios:
        for design in designs:
            for name, share in rates(scenario, *design, repeats).items():
                out.setdefault(name, []).append(share)
    return out


def table(shares: dict[str, list[float]], designs: tuple[tuple[int, int], ...], what: str) -> Iterator[str]:
    """Lines of a Markdown table: events by designs, in per cent."""
    yield f"| {what} | " + " | ".join(f"{a} × {b}" for a, b in designs) + " |"
    yield "| --- |" + " ---: |" * len(designs)
    for name, row in shares.items():
        yield f"| {name} | " + " | ".join(f"{100 * share:.1f}" for share in row) + " |"


TABLES = {
    "wrong": ((*WRONG, *LIMITS), DESIGNS, "per cent of studies, seeds × tasks"),
    "found": (FOUND, DESIGNS, "per cent of studies, seeds × tasks"),
    "covered": ((questions,), SAMPLES, "per cent of intervals that hold the truth, seeds × examples"),
}


def _repeats(text: str) -> int:
    number = whole(text)
    if number < 1:
        raise ValueError("is below 1")
    return number


PURPOSE = "Simulate studies with known effects: how often verdicts are wrong, what they find, what intervals hold."
KEYS = {
    "table": cli.Key("wrong verdicts, effects found, or truths covered", "all", ("all", *TABLES)),
    "repeats": cli.Key("studies drawn for each number", "2000", kind=_repeats),
}


def run(options: dict[str, Any]) -> cli.Answer:
    """Draw, judge, count."""
    pages, data = [], {}
    for name, (scenarios, designs, what) in TABLES.items():
        if options["table"] in ("all", name):
            shares = events(scenarios, designs, options["repeats"])
            pages.append("\n".join([*table(shares, designs, what), ""]))
            data[name] = {"designs": designs, "shares": shares}
    return cli.Answer("\n".join(pages), {"tables": data})


VERB = cli.verb(PURPOSE, KEYS, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the verb."""
    return cli.main("simulate", VERB, arguments)


if __name__ == "__main__":
    sys.exit(main())
