"""What every launcher is told, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.common import files
from kdexp.common.locks import is_locked
from kdexp.run.execute import LABELS, label

if TYPE_CHECKING:
    from kdexp.launch.board import Board


@dataclass(frozen=True)
class Point:
    """A grid point, composed and checked.

    Attributes:
        id: identity of its science (64 hex digits).
        name: the run's name, which is the name of its folder.
        folder: where the run lives.
        config: the resolved configuration.
        overrides: the overrides that make it, for people.
        trial: number of the trial of a search that it belongs to.
    """

    id: str
    name: str
    folder: Path
    config: dict[str, Any]
    overrides: list[str] = field(default_factory=list)
    trial: int | None = None

    @property
    def labels(self) -> dict[str, str]:
        """Short names for tables."""
        return {key: label(self.config, key) if self.config.get(key) else "" for key in LABELS}


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

    point: Point
    state: str
    seconds: float = 0.0
    error: str | None = None
    note: str | None = None

    @property
    def log(self) -> Path:
        """The run's own log."""
        return self.point.folder / "run.log"


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
    """

    size: int = 1
    devices: frozenset[str] = frozenset({"auto"})

    def __bool__(self) -> bool:
        """Tell whether points are left, or may still come."""
        raise NotImplementedError

    def next(self, running: list[Point]) -> Point | None:
        """Take the point to start now; None = there is none at this moment, ask again."""
        raise NotImplementedError

    def requeue(self, point: Point) -> None:
        """Take a point back that was not carried out to its end."""
        raise NotImplementedError

    def ended(self, outcome: Outcome) -> Outcome:
        """Hear how a point ended; returns what people shall see of it."""
        return outcome

    def unwanted(self, running: list[Point]) -> list[Point]:
        """Look at the points that run; returns those that shall be stopped now."""
        return []


class FixedQueue(Source):
    """A list of points, in its order."""

    def __init__(self, points: Sequence[Point]):
        self.waiting = list(points)
        self.size = len(self.waiting)
        self.devices = devices(points)

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def next(self, running: list[Point]) -> Point | None:
        """See :class:`Source`."""
        return self.waiting.pop(0)

    def requeue(self, point: Point) -> None:
        """See :class:`Source`."""
        self.waiting.append(point)


class Launcher:
    """Carries points out. A subclass is chosen by ``hydra/launcher=NAME`` and gets that file's keys as arguments.

    Attributes:
        costs: point id -> expected seconds, where known; set before :meth:`launch`.
    """

    def __init__(self) -> None:
        self.costs: dict[str, float] = {}

    def launch(self, points: list[Point], board: Board) -> list[Outcome]:
        """Carry all points out; see :meth:`serve`."""
        return self.serve(self.schedule(points), board)

    def prepare(self, points: list[Point]) -> None:
        """Begin in the background what takes long before a first run; called as soon as the points stand."""

    def schedule(self, points: list[Point]) -> Source:
        """Decide in which order the points of a grid start."""
        return FixedQueue(points)

    def serve(self, source: Source, board: Board) -> list[Outcome]:
        """Carry out what ``source`` hands out, until it has no more; a failed point never stops the others.

        Raises:
            Interrupted: a person stopped it. Running points are left so that the same command continues them.
            ValueError: the launcher cannot work here (a package that it needs is missing).
        """
        raise NotImplementedError


def first_error(point: Point) -> str:
    """Return the first line of a failed run's error, from its status file."""
    status = files.read_json(point.folder / "status.json") or {}
    lines = [line for line in str(status.get("error") or "").splitlines() if line.strip()]
    return lines[0] if lines else "no reason was recorded; see its log"


def devices(points: Sequence[Point]) -> frozenset[str]:
    """Return the values of ``runtime.device`` of all points."""
    return frozenset(str((point.config.get("runtime") or {}).get("device", "auto")) for point in points)


def is_being_run(point: Point) -> bool:
    """Tell whether some process holds a run's lock, that is, carries it out at this moment."""
    return is_locked(point.folder / ".lock")


def result(point: Point) -> dict[str, Any] | None:
    """Return a finished point's result.json, or None."""
    return files.read_json(point.folder / "result.json")


def score(run_result: dict[str, Any] | None) -> tuple[str, float] | None:
    """Return (metric, value on validation) of a result, or None where there is none."""
    if not run_result:
        return None
    metric = (run_result.get("task") or {}).get("metric")
    value = ((run_result.get("scores") or {}).get("validation") or {}).get(metric)
    return None if value is None else (str(metric), float(value))


def seconds(run_result: dict[str, Any] | None) -> float | None:
    """Return the wall-clock cost of a result, or None."""
    value = ((run_result or {}).get("cost") or {}).get("seconds")
    return None if value is None else float(value)
