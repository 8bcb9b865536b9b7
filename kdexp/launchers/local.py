"""``hydra/launcher=local``: every run in a process of its own, as many at once as the machine holds.

Processes are forked from one that has imported PyTorch and transformers already (Python's forkserver), so starting
one costs a tenth of a second instead of four, and memory is given back when a run ends. A run that dies is marked
and the others go on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from kdexp import files
from kdexp.launchers import machine
from kdexp.launchers.base import RUNS, Interrupted, Launcher, Outcome, Point, held
from kdexp.launchers.board import Board
from kdexp.launchers.schedule import Schedule, shared_stages
from kdexp.launchers.worker import GRACE_S, work

POLL_S = 0.5


@dataclass
class Job:
    """A run in its process, on its slot."""

    point: Point
    process: Any
    env: dict[str, str]
    started: float


class Local(Launcher):
    """Runs points in processes of their own.

    Args:
        slots: runs at once; None = one a GPU, else cores / threads.
        threads: threads a run; None = 1 on a CPU, a share of the cores on GPUs.
        memory_gb: memory a run is expected to need: fewer slots where it is not there. None = do not look.
        runs: see :class:`~kdexp.launchers.base.Launcher`.

    Raises:
        ValueError: fewer than one slot or thread.
    """

    preload = ("kdexp.launchers.preload",)

    def __init__(
        self,
        slots: int | None = None,
        threads: int | None = None,
        memory_gb: float | None = None,
        runs: str = RUNS,
    ):
        super().__init__(runs)
        for name, value in (("slots", slots), ("threads", threads)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"hydra.launcher.{name}={value}: at least 1, or null for this machine's own number.")
        self.asked, self.threads, self.memory_gb = slots, threads, memory_gb
        self.costs: dict[str, float] = {}

    def launch(self, points: list[Point], board: Board) -> list[Outcome]:
        """See :class:`~kdexp.launchers.base.Launcher`."""
        devices = {str((point.config.get("runtime") or {}).get("device", "auto")) for point in points}
        free = machine.slots(self.asked, self.threads, self.memory_gb, devices)[: max(1, len(points))]
        session = _Session(self, board, free)
        with _terminated_like_interrupted():
            try:
                context = _forkserver(free[0], self.preload)
                board.start(slots=len(free))
                return session.run(context, self._schedule(points))
            except KeyboardInterrupt as error:
                raise Interrupted(session.stop()) from error
            except BaseException:
                session.stop()
                raise

    def _schedule(self, points: list[Point]) -> Schedule:
        needs, shared = shared_stages(points)
        return Schedule(list(points), needs, {key: name for key, (name, _) in shared.items()}, self.costs)


class _Session:
    """One call of :meth:`Local.launch`: what runs, what has ended, what another process runs."""

    def __init__(self, launcher: Local, board: Board, free: list[dict[str, str]]):
        self.launcher, self.board, self.free = launcher, board, list(free)
        self.runs = launcher.runs
        self.jobs: list[Job] = []
        self.elsewhere: list[Point] = []
        self.outcomes: list[Outcome] = []

    def run(self, context: Any, schedule: Schedule) -> list[Outcome]:
        """Start points as slots are free until all have ended."""
        while schedule or self.jobs or self.elsewhere:
            while schedule and self.free:
                self._start(context, schedule.next([job.point for job in self.jobs]))
            if self.jobs:
                wait([job.process.sentinel for job in self.jobs], timeout=POLL_S)
            elif self.elsewhere:
                time.sleep(POLL_S)
            self._collect(schedule)
            self._look_elsewhere(schedule)
            self.board.tick()
        return self.outcomes

    def _start(self, context: Any, point: Point) -> None:
        state = self.runs.state(point.folder)
        if state != "finished" and held(point):
            self.board.say(f"{point.name} is being run by another process; it is looked at again later")
            self.elsewhere.append(point)
            return
        if state == "finished":
            self._end(Outcome(point, "skipped"))
            return
        env = self.free.pop(0)
        log = str((point.folder / "run.log").absolute())
        process = context.Process(
            target=work, args=(self.launcher.runs_module, point.config, point.overrides, log, env), name=point.name
        )
        process.start()
        self.jobs.append(Job(point, process, env, time.time()))
        self.board.running(point)

    def _collect(self, schedule: Schedule) -> None:
        for job in [job for job in self.jobs if not job.process.is_alive()]:
            self.jobs.remove(job)
            self.free.append(job.env)
            outcome = self._judge(job)
            job.process.close()
            if outcome is None:
                self.elsewhere.append(job.point)
            else:
                if outcome.state == "finished":
                    schedule.finished(job.point)
                self._end(outcome)

    def _judge(self, job: Job) -> Outcome | None:
        """Say how a process ended; None when another process turned out to be running the point."""
        point, code, took = job.point, job.process.exitcode, time.time() - job.started
        if code == 0:
            return Outcome(point, "finished", took)
        if code < 0:
            error = f"killed by signal {-code} ({signal.Signals(-code).name})"
            if code == -signal.SIGKILL:
                error += ": by hand, or by the system for want of memory (hydra.launcher.slots=N runs fewer at once)"
            mark_failed(point, error)
            return Outcome(point, "failed", took, error)
        if held(point):
            return None
        state = self.runs.state(point.folder)
        if state == "interrupted":
            return Outcome(point, "interrupted", took, "interrupted")
        if state != "failed":
            mark_failed(point, f"its process ended with code {code}")
        return Outcome(point, "failed", took, self.launcher.first_error(point))

    def _look_elsewhere(self, schedule: Schedule) -> None:
        """Take up points that another process has let go of, and note those that it has ended."""
        for point in list(self.elsewhere):
            if held(point):
                continue
            state = self.runs.state(point.folder)
            self.elsewhere.remove(point)
            if state == "finished":
                self._end(Outcome(point, "skipped"))
            elif state == "failed":
                self._end(Outcome(point, "failed", 0.0, self.launcher.first_error(point)))
            else:
                schedule.waiting.append(point)

    def _end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.board.done(outcome)

    def stop(self) -> list[Outcome]:
        """Ask all processes to save and leave, wait, kill what is left; returns all outcomes so far."""
        if self.jobs:
            self.board.say(f"stopping {len(self.jobs)} runs; they save their state first (Ctrl-C again: at once)")
        patience = time.time() + GRACE_S
        for job in self.jobs:
            job.process.terminate()
        try:
            for job in self.jobs:
                job.process.join(max(0.0, patience - time.time()))
        except KeyboardInterrupt:
            pass
        for job in self.jobs:
            if job.process.is_alive():
                job.process.kill()
                job.process.join()
            state = "finished" if job.process.exitcode == 0 else "interrupted"
            self._end(Outcome(job.point, state, time.time() - job.started))
        self.jobs.clear()
        return self.outcomes


def mark_failed(point: Point, error: str) -> None:
    """Write into a run's status that it failed; for runs whose process could not do so itself."""
    before = files.read_json(point.folder / "status.json") or {}
    now = time.strftime("%Y-%m-%dT%H:%M:%S")
    files.write_json(point.folder / "status.json", {**before, "state": "failed", "updated": now, "error": error})


def _forkserver(env: dict[str, str], preload: tuple[str, ...]) -> Any:
    """Start the process that runs are forked from; it reads the thread settings when it loads the libraries."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    threads = {name: env[name] for name in machine.THREADS}
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    return context


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
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
