"""What every launcher is told, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.common import machine, results
from kdexp.common.locks import is_locked
from kdexp.common.status import LOCK, read_status
from kdexp.launch.cohorts import Company
from kdexp.run.spec import RunSpec

if TYPE_CHECKING:
    from kdexp.launch.board import Board


@dataclass(frozen=True)
class Outcome:
    """How a point ended.

    Attributes:
        state: ``finished``, ``failed``, ``interrupted``, ``skipped`` (it was finished before), ``pruned`` (a search
            stopped it), or ``retrying`` (it failed and is tried again).
        seconds: wall-clock time of this attempt; 0 when skipped.
        error: the first line of what went wrong.
        note: what people shall read instead of the score.
    """

    point: RunSpec
    state: str
    seconds: float = 0.0
    error: str | None = None
    note: str | None = None

    @property
    def log(self) -> Path:
        """The run's own log."""
        return self.point.run_dir / "run.log"


class Interrupted(KeyboardInterrupt):
    """A person stopped the study; ``outcomes`` is what had been reached."""

    def __init__(self, outcomes: list[Outcome]):
        self.outcomes = outcomes
        super().__init__("interrupted")


class Source:
    """Where a launcher gets its points from: a grid's list, or a search that decides as results come in.

    Attributes:
        size: more points than these will never run at once.
        devices: the values of ``runtime.device`` of all points.
        each: devices of the run that has most of them.
    """

    size: int = 1
    devices: frozenset[str] = frozenset({"auto"})
    each: int = 1

    def __bool__(self) -> bool:
        """Tell whether points are left, or may still come."""
        raise NotImplementedError

    def next(self, running: list[RunSpec]) -> RunSpec | None:
        """Take the point to start now; None = there is none at this moment, ask again."""
        raise NotImplementedError

    @property
    def left(self) -> int:
        """How many points are still to be started, as far as that is known."""
        return 0

    def beside(self, point: RunSpec, running: list[RunSpec], count: int) -> list[RunSpec]:
        """Take at most ``count`` further points, to be carried out together with one that :meth:`next` has given."""
        return []

    def requeue(self, point: RunSpec) -> None:
        """Take a point back that was not carried out to its end."""
        raise NotImplementedError

    def ended(self, outcome: Outcome) -> Outcome:
        """Hear how a point ended; returns what people shall see of it."""
        return outcome

    def unwanted(self, running: list[RunSpec]) -> list[RunSpec]:
        """Look at the points that run; returns those that shall be stopped now."""
        return []


class FixedQueue(Source):
    """A list of points, in its order."""

    def __init__(self, points: Sequence[RunSpec], memory_gb: float | None = None):
        self.waiting = list(points)
        self.size = len(self.waiting)
        self.devices, self.each = devices(points), each(points)
        self.company = Company(memory_gb)

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def next(self, running: list[RunSpec]) -> RunSpec | None:
        """See :class:`Source`."""
        return self.waiting.pop(0)

    @property
    def left(self) -> int:
        """See :class:`Source`."""
        return len(self.waiting)

    def beside(self, point: RunSpec, running: list[RunSpec], count: int) -> list[RunSpec]:
        """See :class:`Source`."""
        chosen = self.company.choose(point, self.waiting, count)
        for other in chosen:
            self.waiting.remove(other)
        return chosen

    def requeue(self, point: RunSpec) -> None:
        """See :class:`Source`."""
        self.waiting.append(point)


class Launcher:
    """Carries points out. A subclass is chosen by ``hydra/launcher=NAME`` and gets that file's keys as arguments.

    Attributes:
        costs: point id -> expected seconds, where known; set before :meth:`launch`.
    """

    def __init__(self) -> None:
        self.costs: dict[str, float] = {}

    def launch(self, points: list[RunSpec], board: Board) -> list[Outcome]:
        """Carry all points out; see :meth:`serve`."""
        return self.serve(self.schedule(points), board)

    def prepare(self, points: list[RunSpec]) -> None:
        """Begin in the background what takes long before a first run; called as soon as the points stand."""

    def at_once(self, points: Sequence[RunSpec]) -> int | None:
        """Return how many runs, or cohorts, it would carry out at once; None = that shows when it starts."""
        return 1

    def memory_each(self, points: Sequence[RunSpec]) -> float | None:
        """Return the memory (GiB) that each of those has, before any is started; None = not known here."""
        return None

    def problems(self, wanted: frozenset[str], each: int = 1) -> list[str]:
        """Say which of the points' devices cannot be had where they are carried out: on this machine, unless told.

        Args:
            wanted: the values of ``runtime.device``.
            each: devices of the run that has most of them.
        """
        return [problem for device in sorted(wanted) for problem in machine.problems(device, each)]

    def schedule(self, points: list[RunSpec]) -> Source:
        """Decide in which order the points of a grid start."""
        return FixedQueue(points, self.memory_each(points))

    def serve(self, source: Source, board: Board) -> list[Outcome]:
        """Carry out what ``source`` hands out, until it has no more; a failed point never stops the others.

        Raises:
            Interrupted: a person stopped it. Running points are left so that the same command continues them.
            ValueError: the launcher cannot work here (a package that it needs is missing).
        """
        raise NotImplementedError


def first_error(point: RunSpec) -> str:
    """Return the first line of a failed run's error, from its status file."""
    status = read_status(point.run_dir)
    lines = [line for line in str(status.get("error") or "").splitlines() if line.strip()]
    return lines[0] if lines else "no reason was recorded; see its log"


def devices(points: Sequence[RunSpec]) -> frozenset[str]:
    """Return the values of ``runtime.device`` of all points."""
    return frozenset(point.config.runtime.device for point in points)


def each(points: Sequence[RunSpec]) -> int:
    """Return the largest ``runtime.devices`` of all points."""
    return max((point.config.runtime.devices for point in points), default=1)


def is_being_run(point: RunSpec) -> bool:
    """Tell whether some process holds a run's lock, that is, carries it out at this moment."""
    return is_locked(point.run_dir / LOCK)


def result(point: RunSpec) -> dict[str, Any] | None:
    """Return a finished point's result, or None; it was read a moment ago to know that the point is finished."""
    return results.read(point.run_dir)
