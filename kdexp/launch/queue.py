"""In which order points are started: shared stages are built once and early, long runs come first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from kdexp.common.results import seconds
from kdexp.launch.base import Outcome, Source, devices, each, result
from kdexp.launch.cohorts import Company
from kdexp.run.spec import RunSpec


@dataclass
class RunQueue(Source):
    """Points that wait to be started.

    A point whose shared stage is just being built by another running point would only wait for it, so points of other
    teachers, tasks and first phases are started first.

    Attributes:
        waiting: in the order they were written.
        needs: point id -> keys of stages that other points need too, in the order of its plan.
        names: key -> the stage's name.
        cost: point id -> expected seconds, where known.
        built: keys that are known to be built.
        patient: rather start nothing than a point that would only wait (each waits on a paid machine).
        company: finds points that can be carried out together.
    """

    waiting: list[RunSpec]
    needs: Mapping[str, Collection[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    built: set[str] = field(default_factory=set)
    patient: bool = False
    company: Company = field(default_factory=Company)

    def __post_init__(self) -> None:
        self.size = len(self.waiting)
        self.devices, self.each = devices(self.waiting), each(self.waiting)

    def __len__(self) -> int:
        return len(self.waiting)

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def next(self, running: list[RunSpec]) -> RunSpec | None:
        """Take the point to start now; None = the others wait for a stage that is being built (see ``patient``)."""
        busy = {key for point in running for key in self._building(point)}
        free = [point for point in self.waiting if not busy & self._missing(point)]
        if not free and self.patient:
            return None
        free = free or self.waiting
        # The first of the longest; a point of unknown length counts as it was written.
        chosen = max(free, key=lambda point: self.cost.get(point.id, 0.0))
        self.waiting.remove(chosen)
        return chosen

    @property
    def left(self) -> int:
        """See :class:`~kdexp.launch.base.Source`."""
        return len(self.waiting)

    def beside(self, point: RunSpec, running: list[RunSpec], count: int) -> list[RunSpec]:
        """Take points to be carried out together with one, the longest first; none that would wait for another run."""
        busy = {key for other in running for key in self._building(other)}
        free = [other for other in self.waiting if not busy & self._missing(other)]
        chosen = self.company.choose(point, sorted(free, key=lambda other: -self.cost.get(other.id, 0.0)), count)
        for other in chosen:
            self.waiting.remove(other)
        return chosen

    def requeue(self, point: RunSpec) -> None:
        """See :class:`~kdexp.launch.base.Source`."""
        self.waiting.append(point)

    def ended(self, outcome: Outcome) -> Outcome:
        """See :class:`~kdexp.launch.base.Source`."""
        if outcome.state in ("finished", "skipped"):
            self.finished(outcome.point)
        return outcome

    def finished(self, point: RunSpec) -> None:
        """Hear that a point has ended well, and so that its stages are built."""
        self.built |= set(self.needs.get(point.id, ()))

    def _missing(self, point: RunSpec) -> set[str]:
        return set(self.needs.get(point.id, ())) - self.built

    def _building(self, point: RunSpec) -> set[str]:
        if self._missing(point):
            stage = _stage_of(point)
            if stage:  # what comes before it in the plan is there; all of it if it is the student's own
                self.built |= set(takewhile(lambda key: self.names.get(key) != stage, self.needs[point.id]))
        return self._missing(point)


def _stage_of(point: RunSpec) -> str | None:
    """Return the stage that a running point wrote metrics for last."""
    try:
        with (point.run_dir / "metrics.jsonl").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4096))
            last = file.read().splitlines()[-1]
        return str(json.loads(last).get("stage") or "") or None
    except (OSError, IndexError, ValueError):
        return None


def shared_stages(points: list[RunSpec]) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, int]]]:
    """Return which stages points share: (point id -> shared keys, key -> (stage name, number of points)).

    The keys stand for what the configurations say alone: no data are looked at, so they are not those of the store.
    """
    keys: dict[str, list[str]] = {}
    count: Counter[str] = Counter()
    names: dict[str, str] = {}
    for point in points:
        stages = {stage.key: stage.name for stage in point.outline}
        keys[point.id] = list(stages)
        count.update(stages.keys())
        names.update(stages)
    common = {key: (names[key], n) for key, n in count.items() if n > 1}
    return {point: tuple(key for key in needed if key in common) for point, needed in keys.items()}, common


def expected(points: list[RunSpec], finished: list[RunSpec]) -> dict[str, float]:
    """Return expected seconds of points, from finished runs of the same objective, student and task; then of the task.

    Points that nothing is known about are left out.
    """
    spent: dict[tuple[str, ...], list[float]] = {}
    for point in finished:
        took = seconds(result(point))
        if took is not None:
            for kind in _kinds(point):
                spent.setdefault(kind, []).append(took)
    cost = {}
    for point in points:
        known = next((spent[kind] for kind in _kinds(point) if kind in spent), None)
        if known:
            cost[point.id] = sum(known) / len(known)
    return cost


def _kinds(point: RunSpec) -> list[tuple[str, ...]]:
    """Return what runs of about the same length have in common, the closest kin first."""
    task, objective, student, teacher = (point.labels[k] for k in ("task", "objective", "student", "teacher"))
    return [(task, objective, student, teacher), (task, objective), (task,)]
