"""``hydra/launcher=basic``: one run after another in this process; the one to debug with."""

from __future__ import annotations

import time

from kdexp.launchers.base import Interrupted, Launcher, Outcome, Point
from kdexp.launchers.board import Board


class Basic(Launcher):
    """Runs points in this process, one after another, with all its threads."""

    def launch(self, points: list[Point], board: Board) -> list[Outcome]:
        """See :class:`~kdexp.launchers.base.Launcher`."""
        outcomes: list[Outcome] = []
        board.start(slots=1, live=False)
        for point in points:
            board.running(point)
            started = time.time()
            try:
                self.runs.execute(point.config, point.overrides)
                outcome = Outcome(point, "finished", time.time() - started)
            except KeyboardInterrupt as error:
                outcomes.append(Outcome(point, "interrupted", time.time() - started))
                board.done(outcomes[-1])
                raise Interrupted(outcomes) from error
            except Exception as error:  # noqa: BLE001 - the run has recorded it; the others go on
                outcome = Outcome(point, "failed", time.time() - started, _line(error))
            outcomes.append(outcome)
            board.done(outcome)
        return outcomes


def _line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
