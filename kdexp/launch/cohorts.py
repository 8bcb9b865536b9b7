"""Which runs are carried out together in one process, on one pass of a live teacher (:mod:`kdexp.run.cohort`).

Those that meet the same batches and ask the same teacher about them, where it is run on every batch because what it
says is not stored. Company changes no number, so it is formed of what waits, anew each time, whatever it was before.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from kdexp.config.identity import digest
from kdexp.run import footprint
from kdexp.run.spec import RunSpec
from kdexp.train import forecast, shared
from kdexp.train.compiling import GRAPHS

AUTO = 8
"""Runs of a cohort at the most, unless ``runtime.cohort`` names a number: each takes memory for its student."""

ONE_PROCESS = ("device", "devices", "dtype", "compile", "compile_mode", "threads", "cohort", "store", "remote")
"""Settings of ``runtime`` that runs of one process have in common."""


def most(point: RunSpec, waiting: int, slots: int) -> int:
    """Return how many runs may be carried out together with a point, itself included.

    Args:
        point: one of them.
        waiting: runs that are to be started, the point included.
        slots: runs, or cohorts, at once: as long as each has one to do, cohorts would only leave slots empty.
    """
    runtime = point.config.runtime
    if runtime.devices > 1:  # its teacher's passes are those of several processes
        return 1
    if runtime.compile_mode == GRAPHS:  # what its teacher has said is overwritten when the next student is run
        return 1
    limit = {"auto": AUTO, "off": 1}.get(runtime.cohort) or int(runtime.cohort)
    return min(limit, -(-waiting // slots))


class Company:
    """Finds runs that can be carried out together; remembers what it has learned of each.

    Args:
        memory_gb: of the machine, for each cohort; with ``runtime.cohort=auto`` it is made for that. None = not known.
        looking: nothing shall be written.
    """

    def __init__(self, memory_gb: float | None = None, looking: bool = False) -> None:
        self.memory_gb = memory_gb
        self._alike: dict[str, str] = {}
        self._phases: dict[str, set[str]] = {}
        self._live = forecast.Live(looking)

    def choose(self, point: RunSpec, others: Sequence[RunSpec], count: int) -> list[RunSpec]:
        """Return those of ``others``, in their order, that are carried out together with a point; at most ``count``."""
        if count < 1:
            return []
        key = self.key(point)
        alike = (other for other in others if self.key(other) == key and self._live_phases(point))
        chosen = list(islice((other for other in alike if self._live_phases(point) & self._live_phases(other)), count))
        return chosen[: self._fitting(point) - 1] if chosen else []

    def _fitting(self, point: RunSpec) -> int:
        """Return how many students like a run's the memory holds in training, at least 1; their teacher comes first."""
        if self.memory_gb is None or point.config.runtime.cohort != "auto":
            return sys.maxsize
        teacher, student = footprint.in_training_gb(point.config)
        return max(1, int((self.memory_gb - teacher) / student))

    def _live_phases(self, point: RunSpec) -> set[str]:
        """Return the phases of a run that ask its teacher about every batch."""
        if point.id not in self._phases:
            self._phases[point.id] = self._live.phases(point.config, point.outline)
        return self._phases[point.id]

    def key(self, point: RunSpec) -> str:
        """Return what decides the batches that a run meets, who teaches, and where."""
        if point.id not in self._alike:
            config, objective = point.config, point.config.objective
            alike = {
                "teacher": config.teacher.model_dump(), "task": config.task, "data": config.data.model_dump(),
                "seed": config.seed, "recipe": shared.stream(config.recipe), "phases": [s.name for s in point.outline],
                "schedule": [objective.method, objective.schedule, objective.start],
                "runtime": config.runtime.model_dump(include=set(ONE_PROCESS)),
            }  # fmt: skip
            self._alike[point.id] = digest(alike)
        return self._alike[point.id]


def said(points: Sequence[RunSpec], slots: int | None, memory_gb: float | None = None) -> str:
    """Return which cohorts would be formed of points, for people; '' if none would.

    Args:
        points: that are still to come.
        slots: runs, or cohorts, at once; None = nobody knows yet.
        memory_gb: for each of them; None = nobody knows.
    """
    company, sizes, total = Company(memory_gb, looking=True), Counter[int](), len(points)
    groups: dict[str, list[RunSpec]] = {}
    for point in points:
        if most(point, total, slots or 1) > 1:
            groups.setdefault(company.key(point), []).append(point)
    for waiting in groups.values():
        while waiting:
            point = waiting.pop(0)
            beside = company.choose(point, waiting, most(point, total, slots or 1) - 1)
            for other in beside:
                waiting.remove(other)
            sizes[1 + len(beside)] += 1
    sizes.pop(1, None)
    runs = sum(size * count for size, count in sizes.items())
    if not runs:
        return ""
    if slots is None:
        return f"{runs} of {total} runs may train together, if there are fewer slots than runs"
    parts = ", ".join(f"{count} of {size} runs" for size, count in sizes.items())
    return f"{runs} of {total} runs train together, on one pass of their teacher: {parts} ({slots} at once)"
