"""``hydra/launcher=basic``: one run, or one cohort, after another in this process; the one to debug with."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kdexp.common.status import state as run_state
from kdexp.launch.base import Interrupted, Launcher, Outcome, Source, is_being_run
from kdexp.launch.board import Board
from kdexp.launch.cohorts import most
from kdexp.launch.slots import free_memory_gb
from kdexp.run import cohort
from kdexp.run.spec import RunSpec

WATCH_S = 0.5


class Basic(Launcher):
    """Runs points in this process, one (or one cohort) after another, with all its threads."""

    def memory_each(self, points: Sequence[RunSpec]) -> float | None:
        """See :class:`~kdexp.launch.base.Launcher`."""
        return free_memory_gb()

    def serve(self, source: Source, board: Board) -> list[Outcome]:
        """See :class:`~kdexp.launch.base.Launcher`."""
        outcomes: list[Outcome] = []
        seen_elsewhere = set[str]()
        board.start(slots=1, live=False)
        while source:
            waiting = source.left
            point = source.next([])
            if point is None:
                time.sleep(WATCH_S)
                continue
            if is_being_run(point):  # by another process: looked at again at the end
                source.requeue(point)
                time.sleep(WATCH_S if point.id in seen_elsewhere else 0.0)
                seen_elsewhere.add(point.id)
                continue
            pruned: list[RunSpec] = []
            for one, outcome in self._carry_out(self._company(point, waiting, source), board, source, pruned):
                if outcome is None:
                    source.requeue(one)
                    continue
                if outcome.state != "interrupted" or pruned:
                    outcome = source.ended(outcome)
                outcomes.append(outcome)
                board.done(outcome)
            if outcomes and outcomes[-1].state == "interrupted":
                raise Interrupted(outcomes)
        return outcomes

    def _company(self, point: RunSpec, waiting: int, source: Source) -> list[RunSpec]:
        """Return a point and those that are carried out together with it; what needs no work comes again by itself."""
        points = [point]
        if run_state(point.run_dir) != "finished":
            for other in source.beside(point, [], most(point, waiting, 1) - 1 if waiting > 1 else 0):
                idle = is_being_run(other) or run_state(other.run_dir) == "finished"
                source.requeue(other) if idle else points.append(other)
        return points

    def _carry_out(
        self, points: list[RunSpec], board: Board, source: Source, pruned: list[RunSpec]
    ) -> list[tuple[RunSpec, Outcome | None]]:
        """Carry points out together; None for one that another process was quicker with. Interrupted ones come last."""
        if run_state(points[0].run_dir) == "finished":
            return [(points[0], Outcome(points[0], "skipped"))]
        for point in points:
            board.running(point)
        started = time.time()
        try:
            with _watched(points, source, pruned):
                ends = cohort.carry_out(points)
        except KeyboardInterrupt as error:
            ends = [error for _ in points]
        ended = [(point, _outcome(point, end, time.time() - started)) for point, end in zip(points, ends, strict=True)]
        return sorted(ended, key=lambda one: one[1] is not None and one[1].state == "interrupted")


def _outcome(point: RunSpec, error: BaseException | None, took: float) -> Outcome | None:
    """Say how a point ended: the run has recorded it, and the others go on."""
    if error is None:
        return Outcome(point, "finished", took)
    if isinstance(error, KeyboardInterrupt):
        return Outcome(point, "interrupted", took)
    if is_being_run(point):
        return None
    stopped = run_state(point.run_dir) == "interrupted"
    return Outcome(point, "interrupted" if stopped else "failed", took, _line(error))


@contextmanager
def _watched(points: list[RunSpec], source: Source, pruned: list[RunSpec]) -> Iterator[None]:
    """Let ``source`` look at runs while they last, and tell them to stop when all are unwanted.

    The run has the main thread, where it hears signals; so a second thread looks, and sends this process the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            if len(source.unwanted(points)) == len(points) and not over.is_set():
                pruned.extend(points)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def told(_number: int, _frame: Any) -> None:
        if not pruned:  # a signal of our own may come when the run has just ended
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, told)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGTERM, before)


def _line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
