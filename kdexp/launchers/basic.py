"""``hydra/launcher=basic``: one run after another in this process; the one to debug with."""

from __future__ import annotations

import time
from collections import deque

from kdexp.launchers.base import Interrupted, Launcher, Outcome, Point, held
from kdexp.launchers.board import Board


class Basic(Launcher):
    """Runs points in this process, one after another, with all its threads."""

    def launch(self, points: list[Point], board: Board) -> list[Outcome]:
        """See :class:`~kdexp.launchers.base.Launcher`."""
        outcomes: list[Outcome] = []
        waiting, seen_elsewhere = deque(points), set[str]()
        board.start(slots=1, live=False)
        while waiting:
            point = waiting.popleft()
            if held(point):  # by another process: looked at again at the end
                waiting.append(point)
                time.sleep(0.5 if point.id in seen_elsewhere else 0.0)
                seen_elsewhere.add(point.id)
                continue
            outcome = self._one(point, board)
            if outcome is None:
                waiting.append(point)
                continue
            outcomes.append(outcome)
            board.done(outcome)
            if outcome.state == "interrupted":
                raise Interrupted(outcomes)
        return outcomes

    def _one(self, point: Point, board: Board) -> Outcome | None:
        """Carry one point out; None when another process was quicker."""
        if self.runs.state(point.folder) == "finished":
            return Outcome(point, "skipped")
        board.running(point)
        started = time.time()
        try:
            self.runs.execute(point.config, point.overrides)
        except KeyboardInterrupt:
            return Outcome(point, "interrupted", time.time() - started)
        except Exception as error:  # the run has recorded it; the others go on
            if held(point):
                return None
            stopped = self.runs.state(point.folder) == "interrupted"
            return Outcome(point, "interrupted" if stopped else "failed", time.time() - started, _line(error))
        return Outcome(point, "finished", time.time() - started)


def _line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
