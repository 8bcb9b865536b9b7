"""``hydra/launcher=basic``: one run after another in this process; the one to debug with."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kdexp.common.status import state as run_state
from kdexp.launch.base import Interrupted, Launcher, Outcome, Source, is_being_run
from kdexp.launch.board import Board
from kdexp.run import execute as runs
from kdexp.run.spec import RunSpec

WATCH_S = 0.5


class Basic(Launcher):
    """Runs points in this process, one after another, with all its threads."""

    def serve(self, source: Source, board: Board) -> list[Outcome]:
        """See :class:`~kdexp.launch.base.Launcher`."""
        outcomes: list[Outcome] = []
        seen_elsewhere = set[str]()
        board.start(slots=1, live=False)
        while source:
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
            outcome = self._one(point, board, source, pruned)
            if outcome is None:
                source.requeue(point)
                continue
            if outcome.state != "interrupted" or pruned:
                outcome = source.ended(outcome)
            outcomes.append(outcome)
            board.done(outcome)
            if outcome.state == "interrupted":
                raise Interrupted(outcomes)
        return outcomes

    def _one(self, point: RunSpec, board: Board, source: Source, pruned: list[RunSpec]) -> Outcome | None:
        """Carry one point out; None when another process was quicker."""
        if run_state(point.run_dir) == "finished":
            return Outcome(point, "skipped")
        board.running(point)
        started = time.time()
        try:
            with _watched(point, source, pruned):
                runs.execute(point)
        except KeyboardInterrupt:
            return Outcome(point, "interrupted", time.time() - started)
        except Exception as error:  # the run has recorded it; the others go on
            if is_being_run(point):
                return None
            stopped = run_state(point.run_dir) == "interrupted"
            return Outcome(point, "interrupted" if stopped else "failed", time.time() - started, _line(error))
        return Outcome(point, "finished", time.time() - started)


@contextmanager
def _watched(point: RunSpec, source: Source, pruned: list[RunSpec]) -> Iterator[None]:
    """Let ``source`` look at the run while it lasts, and tell the run to stop when it is unwanted.

    The run has the main thread, where it hears signals; so a second thread looks, and sends this process the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            if source.unwanted([point]) and not over.is_set():
                pruned.append(point)
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
