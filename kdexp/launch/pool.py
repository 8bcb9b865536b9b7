"""What all launchers with several runs at once share: start, watch, stop, judge; where a run lives is a subclass's.

One thread looks after everything, by polling: runs end in other processes, on other machines, or by the hand of another
shell, and none of these can be waited for together. What is decided here is read from files and locks that the runs
hold, so that any number of launchers may work on one study, and any of them may be killed.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from kdexp.common.files import DiskFull
from kdexp.common.status import read_status, write_status
from kdexp.common.status import state as run_state
from kdexp.launch.base import Interrupted, Launcher, Outcome, Source, first_error, is_being_run
from kdexp.launch.board import Board
from kdexp.launch.child import GRACE_S, INTERRUPTED
from kdexp.launch.cohorts import Company, most
from kdexp.launch.queue import RunQueue, shared_stages
from kdexp.run.spec import RunSpec

POLL_S = 0.5


class Parallel(Launcher):
    """A launcher with several runs at once.

    Attributes:
        patient: rather start nothing than a run that would only wait for a stage that another one is building.
    """

    patient = False

    def schedule(self, points: list[RunSpec]) -> Source:
        """See :class:`~kdexp.launch.base.Launcher`: shared stages early and once, long runs first."""
        needs, shared = shared_stages(points)
        names = {key: name for key, (name, _) in shared.items()}
        company = Company(self.memory_each(points))
        return RunQueue(list(points), needs, names, self.costs, patient=self.patient, company=company)


@dataclass
class Job:
    """A run under way, or a cohort: ``handle`` is what the launcher knows it by, ``slot`` what it takes up."""

    points: list[RunSpec]
    handle: Any
    slot: Any
    started: float
    stopping: bool = False


class Pool:
    """The runs of one call of :meth:`Launcher.serve`: those under way, those that ended, those of other processes.

    A subclass says how many more fit (:meth:`room`), starts (:meth:`begin`), waits, and stops runs.
    """

    grace_s = GRACE_S + 5.0
    """Seconds that runs may take to save themselves when all are stopped."""

    def __init__(self, board: Board):
        self.board = board
        self.jobs: list[Job] = []
        self.elsewhere: list[RunSpec] = []
        self.outcomes: list[Outcome] = []

    def room(self) -> int:
        """Return how many runs, or cohorts of runs, can be started now."""
        raise NotImplementedError

    def begin(self, cohorts: list[list[RunSpec]]) -> list[Job]:
        """Start runs; those of one list are carried out together in one process."""
        raise NotImplementedError

    def wait(self, seconds: float) -> None:
        """Wait until a run ends, at most so long."""
        time.sleep(seconds)

    def over(self, job: Job) -> tuple[int, str] | None:
        """Return a job's exit code and what is known about a bad one; None while it runs.

        Codes: 0 finished, 130 interrupted, below 0 killed by that signal, anything else failed.
        """
        raise NotImplementedError

    def release(self, job: Job) -> None:
        """Free what an ended job took up."""

    def ask_to_stop(self, job: Job) -> None:
        """Ask the runs of one job to save themselves and leave."""
        raise NotImplementedError

    def kill(self, job: Job) -> None:
        """End one job that did not leave."""
        raise NotImplementedError

    def run(self, source: Source) -> list[Outcome]:
        """Carry out what ``source`` hands out.

        Raises:
            Interrupted: a person stopped it; all runs have saved themselves.
        """
        try:
            while source or self.jobs or self.elsewhere:
                self._fill(source)
                if self.jobs:
                    self.wait(POLL_S)
                elif source or self.elsewhere:
                    time.sleep(POLL_S)
                self._collect(source)
                self._look_elsewhere(source)
                self._stop_unwanted(source)
                self.board.tick()
            return self.outcomes
        except KeyboardInterrupt as error:
            self._stop_all(source)
            raise Interrupted(self.outcomes) from error
        except BaseException:
            self._stop_all(source)
            raise

    def _fill(self, source: Source) -> None:
        chosen: list[list[RunSpec]] = []
        waiting, slots = source.left, self.room() + len(self.jobs)
        while source and self.room() > len(chosen):
            running = [*self._running(), *chain.from_iterable(chosen)]
            point = source.next(running)
            if point is None:
                break
            if self._ready(point, running, source):
                company = [point]
                for other in source.beside(point, running, most(point, waiting, slots) - 1 if waiting > slots else 0):
                    company += [other] if self._ready(other, [*running, *company], source) else []
                chosen.append(company)
        if chosen:
            self.jobs += self.begin(chosen)
            for point in chain.from_iterable(chosen):
                self.board.running(point)

    def _running(self) -> list[RunSpec]:
        return [point for job in self.jobs for point in job.points]

    def _ready(self, point: RunSpec, running: list[RunSpec], source: Source) -> bool:
        if run_state(point.run_dir) == "finished":
            self._end(Outcome(point, "skipped"), source)
            return False
        twin = any(other.id == point.id for other in running)  # two trials of a search may be the same run
        if twin or is_being_run(point):
            if not twin:
                self.board.say(f"{point.name} is being run by another process; it is looked at again later")
            self.elsewhere.append(point)
            return False
        return True

    def _collect(self, source: Source) -> None:
        for job in list(self.jobs):
            ended = self.over(job)
            if ended is None:
                continue
            self.jobs.remove(job)
            outcomes = {point.id: self._judge(job, point, *ended) for point in job.points}
            self.release(job)
            for point in job.points:
                outcome = outcomes[point.id]
                if outcome is None:
                    self.elsewhere.append(point)
                else:
                    self._end(outcome, source)

    def _judge(self, job: Job, point: RunSpec, code: int, why: str) -> Outcome | None:
        """Say how a run ended; None when another process turned out to be running the point."""
        took, alone = time.time() - job.started, len(job.points) == 1
        # The exit code says how the process went, the status how the run did: it may have ended before it was killed.
        if code == 0:
            return Outcome(point, "finished", took)
        state = run_state(point.run_dir)
        if state == "finished":
            return Outcome(point, "skipped" if alone else "finished", took)
        if state == "failed" and not alone:  # of itself, before the process ended for all of them
            return Outcome(point, "failed", took, first_error(point))
        if code < 0:
            error = f"killed by signal {-code} ({signal.Signals(-code).name})"
            if code == -signal.SIGKILL:
                fewer = "hydra.launcher.slots=N runs fewer at once" if alone else "runtime.cohort=N puts fewer together"
                error += f": by hand, or by the system for want of memory ({fewer})"
            amend_status(point, state="failed", error=error)
            return Outcome(point, "failed", took, error)
        if is_being_run(point):  # its own process has gone, so the lock is another's, which was quicker
            return None
        if code == INTERRUPTED or (state == "interrupted" and not why):
            return Outcome(point, "interrupted", took, "interrupted")
        if state != "failed":
            amend_status(point, state="failed", error=why or f"its process ended with code {code}")
        return Outcome(point, "failed", took, first_error(point))

    def _look_elsewhere(self, source: Source) -> None:
        """Take up points that another process has let go of, and note those that it has ended."""
        busy = {point.id for point in self._running()}
        for point in list(self.elsewhere):
            if point.id in busy or is_being_run(point):
                continue
            # Between the two looks the run may be taken up again; starting it here would then fail and lead back here.
            state = run_state(point.run_dir)
            self.elsewhere.remove(point)
            if state == "finished":
                self._end(Outcome(point, "skipped"), source)
            elif state == "failed":
                self._end(Outcome(point, "failed", 0.0, first_error(point)), source)
            else:
                source.requeue(point)

    def _stop_unwanted(self, source: Source) -> None:
        running = [job for job in self.jobs if not job.stopping]
        points = [point for job in running for point in job.points]
        unwanted = {id(point) for point in source.unwanted(points)} if running else set()
        for job in running:
            if unwanted.issuperset(id(point) for point in job.points):
                job.stopping = True
                self.ask_to_stop(job)

    def _end(self, outcome: Outcome, source: Source) -> None:
        shown = source.ended(outcome)
        self.outcomes.append(shown)
        self.board.done(shown)

    def _stop_all(self, source: Source) -> None:
        """Ask all runs to save and leave, wait, end what is left."""
        if self.jobs:
            self.board.say(f"stopping {len(self._running())} runs; they save their state first (Ctrl-C again: at once)")
        patience = time.time() + self.grace_s
        for job in self.jobs:
            self.ask_to_stop(job)
        with contextlib.suppress(KeyboardInterrupt):
            while time.time() < patience and any(self.over(job) is None for job in self.jobs):
                self.wait(0.1)
        for job in self.jobs:
            ended = self.over(job)
            if ended is None:
                self.kill(job)
            for point in job.points:
                if ended is not None and (ended[0] == 0 or run_state(point.run_dir) == "finished"):
                    self._end(Outcome(point, "finished", time.time() - job.started), source)
                else:  # the source is not told: the same command takes it up
                    outcome = Outcome(point, "interrupted", time.time() - job.started)
                    self.outcomes.append(outcome)
                    self.board.done(outcome)
            self.release(job)
        self.jobs.clear()


def amend_status(point: RunSpec, **changes: Any) -> None:
    """Change a run's status file from outside, after its process has gone and could not do so itself."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S")
    with contextlib.suppress(DiskFull):  # the study's end says it all the same
        write_status(point.run_dir, {**read_status(point.run_dir), "updated": now, **changes})


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP to the launcher as Ctrl-C while runs are under way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_it(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, raise_it) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
