"""What one more hour of compute would do to a comparison: more seeds, more tasks, or more examples. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from scipy import special

from .crossed import Components
from .estimate import Estimate

HOUR = 3600.0


@dataclass(frozen=True)
class Option:
    """One use of an hour: what it ``buys``, and the half-width of the 95 % interval ``now`` and ``then``, in points."""

    what: str
    buys: str
    now: float
    then: float


def half_width(seed_error: float, df: float, example_error: float, level: float = 0.95) -> float:
    """Half-width of the interval for new seeds, and for new examples where their error is not 0; see ``crossed``."""
    upper = 0.5 + level / 2
    return math.hypot(special.stdtrit(df, upper) * seed_error, special.ndtri(upper) * example_error)


def options(
    seeds: Estimate, parts: dict[str, Components], seconds: Sequence[float], n: int, hour: float = HOUR
) -> tuple[Option, ...]:
    """What an hour of one process buys, given the answer for new seeds and, where known, the components by task.

    Args:
        seeds: the pooled answer to *these examples, new seeds* over all tasks.
        parts: variance components of the tasks; empty without predictions, then the interval is that for new seeds.
        seconds: what one more seed costs on each task.
        n: seeds so far.
    """
    if math.isnan(seeds.error) or n < 2:
        return ()
    tasks = len(seconds)
    of_examples = math.sqrt(sum(p.example / p.examples for p in parts.values())) / tasks
    now = half_width(seeds.error, seeds.df, of_examples)
    more = int(hour / sum(seconds))
    grown = (n + more) / n
    buys = f"{more} more seeds on each task" if more else f"no seed: one costs {sum(seconds) / hour:.1f} hours"
    out = [Option("seeds", buys, now, _later(seeds, n, more, 1 / math.sqrt(grown), of_examples))]
    added = int(hour / (n * mean(seconds)))
    shrink = math.sqrt(tasks / (tasks + added))
    buys = f"{added} more tasks like these" if added else f"no task: one costs {n * mean(seconds) / hour:.1f} hours"
    wider = half_width(seeds.error * shrink, seeds.df * (tasks + added) / tasks, of_examples * shrink)
    out.append(Option("tasks", buys, now, wider))
    if parts:
        # a seed's error holds the rest of each example once more: it shrinks with them, the seed's own part does not
        rest = sum(p.rest / p.examples / n for p in parts.values()) / tasks**2
        smaller = math.sqrt(max(seeds.error**2 - rest / 2, 0.0))
        then = half_width(smaller, seeds.df, of_examples / math.sqrt(2))
        out.append(Option("examples", "as many labelled examples again (no training)", now, then))
    return tuple(out)


def _later(seeds: Estimate, n: int, more: int, shrink: float, of_examples: float) -> float:
    """Half-width with more seeds; their degrees of freedom grow as those of a pooled error do."""
    return half_width(seeds.error * shrink, seeds.df * (n + more - 1) / (n - 1), of_examples)
