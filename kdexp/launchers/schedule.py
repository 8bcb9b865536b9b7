"""In which order points are started: shared stages are built once and early, long runs come first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kdexp import files
from kdexp.launchers.base import Point, result, seconds


@dataclass
class Schedule:
    """Points that wait to be started.

    A point whose shared stage is just being built by another running point would only wait for it, so points of other
    teachers and tasks are started first.

    Attributes:
        waiting: in the order they were written.
        needs: point id -> keys of stages that other points need too.
        cost: point id -> expected seconds, where known.
        built: says whether a stage's key is in the store.
    """

    waiting: list[Point]
    needs: dict[str, frozenset[str]] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    built: Callable[[str], bool] = lambda key: False
    _done: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.waiting)

    def next(self, running: list[Point]) -> Point:
        """Take the point to start now."""
        busy = {key for point in running for key in self._missing(point)}
        free = [point for point in self.waiting if not busy & self._missing(point)] or self.waiting
        # The first of the longest; a point of unknown length counts as it was written.
        chosen = max(free, key=lambda point: self.cost.get(point.id, 0.0))
        self.waiting.remove(chosen)
        return chosen

    def _missing(self, point: Point) -> frozenset[str]:
        missing = frozenset(key for key in self.needs.get(point.id, ()) if key not in self._done)
        for key in missing:
            if self.built(key):
                self._done.add(key)
        return missing - self._done


def shared_stages(points: list[Point]) -> tuple[dict[str, frozenset[str]], dict[str, tuple[str, int]]]:
    """Return which stages points share: (point id -> shared keys, key -> (stage name, number of points)).

    Raises:
        Exception: whatever keeps a plan from being made (no data, no network).
    """
    from kdexp import plan

    keys: dict[str, set[str]] = {}
    count: Counter[str] = Counter()
    names: dict[str, str] = {}
    for point in points:
        found = {stage.key: stage.name for stage in plan.stages(point.config)}
        keys[point.id] = set(found)
        count.update(found)
        names.update(found)
    common = {key: (names[key], n) for key, n in count.items() if n > 1}
    return {name: frozenset(found & common.keys()) for name, found in keys.items()}, common


def expected(points: list[Point], finished: list[Point]) -> dict[str, float]:
    """Return expected seconds of points, from finished runs of the same objective, student and task; then of the task.

    Points that nothing is known about are left out.
    """
    exact: dict[tuple[str, ...], list[float]] = {}
    for point in finished:
        took = seconds(result(point))
        if took is not None:
            for mark in _marks(point):
                exact.setdefault(mark, []).append(took)
    cost = {}
    for point in points:
        known = next((exact[mark] for mark in _marks(point) if mark in exact), None)
        if known:
            cost[point.id] = sum(known) / len(known)
    return cost


def _marks(point: Point) -> list[tuple[str, ...]]:
    task, objective, student, teacher = (point.labels[k] for k in ("task", "objective", "student", "teacher"))
    return [(task, objective, student, teacher), (task, objective), (task,)]


def in_store(points: list[Point]) -> Callable[[str], bool]:
    """Return a function that says whether a stage's key is finished in the store that these points use."""
    roots = {Path((point.config.get("runtime") or {}).get("store") or "multirun/.store") for point in points}
    return lambda key: any(files.read_json(root / key / "meta.json") is not None for root in roots)
