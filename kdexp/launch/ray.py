"""``hydra/launcher=ray``: every run is a task of a Ray cluster, which finds a machine with room for it.

Each task starts the run as a process of its own, so memory and threads are the run's alone. A task whose machine dies
is started again elsewhere and continues from the run's last checkpoint, which lies on the disk that all machines see.
When the cluster itself is gone, the study ends with one sentence; Ray would go on asking and then end the process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kdexp.common import machine
from kdexp.common.status import state as run_state
from kdexp.launch.base import Outcome, Source, is_being_run
from kdexp.launch.board import Board
from kdexp.launch.child import INTERRUPTED, STOP, Order, in_process
from kdexp.launch.local import at_least_one, few_gpus, needs_package
from kdexp.launch.pool import Job, Parallel, Pool, terminated_like_interrupted
from kdexp.launch.slots import environment
from kdexp.run.spec import RunSpec
from kdexp.store.remote import of
from kdexp.store.shared_run import SharedRun

ASK_S = 3.0
"""Seconds between two questions whether the cluster is there, and what an answer may take."""
LOST_S = 15.0
"""Seconds without an answer after which the cluster counts as gone."""
RAY_ENDS_S = "120"
"""Seconds after which Ray itself ends a process whose cluster is gone; more than this launcher needs to say so."""


class Ray(Parallel):
    """Runs points as tasks of a Ray cluster.

    Args:
        address: of a running cluster (``auto``, ``ray://head:10001``); None = start one on this machine.
        slots: runs at once; None = as many as the cluster's cores (or GPUs) hold when it is started.
        threads: cores a run.
        gpus: GPUs a run; a part of one is possible.
        memory_gb: memory a run; None = not counted.
        retries: how often a run whose machine died is started again.
        resources: further resources a run needs, by Ray's names.
        workdir: directory on the machines of the cluster that ``multirun/`` counts from; None = the one of this
            process (with ``runtime.remote``, a machine that lacks it takes one of its own).

    Raises:
        ValueError: a setting cannot work.
    """

    patient = True  # a task that only waits keeps a machine

    def __init__(
        self,
        address: str | None = None,
        slots: int | None = None,
        threads: int = 1,
        gpus: float = 0,
        memory_gb: float | None = None,
        retries: int = 3,
        resources: dict[str, float] | None = None,
        workdir: str | None = None,
    ):
        super().__init__()
        needs_package("ray", "ray")
        at_least_one(slots=slots, threads=threads)
        self.address, self.asked, self.threads, self.gpus = address, slots, threads, gpus
        self.memory_gb, self.retries, self.resources = memory_gb, retries, dict(resources or {})
        self.workdir = workdir

    def problems(self, wanted: frozenset[str], each: int = 1) -> list[str]:
        """See :class:`~kdexp.launch.base.Launcher`: runs are carried out elsewhere."""
        if each > 1 and wanted != {"cpu"} and self.gpus < each:
            return [few_gpus(self.gpus, each)]
        return []

    def at_once(self, points: Sequence[RunSpec]) -> int | None:
        """See :class:`~kdexp.launch.base.Launcher`: the cluster is not asked before it is needed."""
        return self.asked

    def memory_each(self, points: Sequence[RunSpec]) -> float | None:
        """See :class:`~kdexp.launch.base.Launcher`."""
        return self.memory_gb

    def serve(self, source: Source, board: Board) -> list[Outcome]:
        """See :class:`~kdexp.launch.base.Launcher`."""
        if self.address:
            os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", RAY_ENDS_S)
            os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a lost ray:// is not replaced by a cluster of this machine
        import ray

        with terminated_like_interrupted():
            own = {} if self.address else {"num_cpus": machine.cores(), "include_dashboard": False}
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            try:
                ray.init(
                    address=self.address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True, **own
                )
            except ConnectionError as error:
                raise ValueError(
                    f"hydra.launcher.address={self.address}: no Ray cluster answers there ({error}). "
                    "Start one: ray start --head. One that asks for a token needs RAY_AUTH_MODE=token here too."
                ) from error
            try:
                slots = max(1, min(self.asked or self._capacity(ray), source.size))
                board.start(slots=slots)
                return _Tasks(self, board, ray, slots).run(source)
            finally:
                ray.shutdown()

    def _capacity(self, ray: Any) -> int:
        have = ray.cluster_resources()
        fits = [have.get("CPU", 1) / self.threads]
        if self.gpus:
            fits.append(have.get("GPU", 0) / self.gpus)
        if int(min(fits)) < 1:
            raise ValueError(
                f"hydra.launcher.threads={self.threads}, gpus={self.gpus}: the cluster has {have.get('CPU', 0):g} "
                f"cores and {have.get('GPU', 0):g} GPUs, so no run would ever start; ask for less, or give slots if it "
                "grows by itself."
            )
        return int(min(fits))


class Lost(RuntimeError):
    """The cluster went away while runs were under way."""


class Pulse:
    """Asks whether a cluster is still there.

    Args:
        address: ``host:port`` of its head.
    """

    def __init__(self, address: str):
        self.address = address.removeprefix("ray://").partition("/")[0]
        self.lost, self.there = False, True
        self.heard = self.asked = time.monotonic()

    def answers(self) -> bool:
        """Ask now."""
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ASK_S).close()
            self.heard, self.there = time.monotonic(), True
        except OSError:
            self.there = False
        return self.there

    def check(self) -> bool:
        """Ask when it is time to, and return the last answer.

        Raises:
            Lost: there has been none for too long; raised once.
        """
        if self.lost or time.monotonic() - self.asked < ASK_S:
            return self.there
        self.asked = time.monotonic()
        if not self.answers() and time.monotonic() - self.heard >= LOST_S:
            self.lost = True
            raise Lost(
                f"the Ray cluster at {self.address} is gone (no answer for {LOST_S:.0f} s); unfinished runs keep their "
                "last checkpoints. Start a cluster (ray start --head): the same command continues."
            )
        return self.there


class _Tasks(Pool):
    """Runs in tasks of Ray."""

    def __init__(self, launcher: Ray, board: Board, ray: Any, slots: int):
        super().__init__(board)
        self.settings, self.ray, self.slots = launcher, ray, slots
        far = str(launcher.address or "").startswith("ray://")
        self.pulse = Pulse(str(launcher.address) if far else ray.get_runtime_context().gcs_address)
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH", "")) if p)
        options: dict[str, Any] = {
            "num_cpus": launcher.threads, "max_retries": launcher.retries, "resources": launcher.resources or None,
            "runtime_env": {"env_vars": {"PYTHONPATH": path}},
        }  # fmt: skip
        if launcher.gpus:
            options["num_gpus"] = launcher.gpus
        if launcher.memory_gb:
            options["memory"] = int(launcher.memory_gb * 2**30)
        self.task = ray.remote(in_process).options(**options)

    def room(self) -> int:
        return self.slots - len(self.jobs)

    def begin(self, cohorts: list[list[RunSpec]]) -> list[Job]:
        env = environment(self.settings.threads, self.settings.gpus)
        started = []
        for points in cohorts:
            for point in points:
                self._let(point)
            cwd = self.settings.workdir or os.getcwd()
            order = Order.of(points, env, cwd, far=True)
            started.append(Job(points, self.task.remote(order), None, time.time()))
        return started

    def wait(self, seconds: float) -> None:
        if self.pulse.check() and not self.pulse.lost:
            with contextlib.suppress(ConnectionError):  # the next check asks again
                self.ray.wait([job.handle for job in self.jobs], num_returns=1, timeout=seconds)
        else:
            time.sleep(seconds)

    def over(self, job: Job) -> tuple[int, str] | None:
        if self.pulse.lost:
            return self._left_alone(job)
        try:
            if not self.ray.wait([job.handle], timeout=0)[0]:
                return None
            code, why = int(self.ray.get(job.handle)), ""
        except self.ray.exceptions.TaskCancelledError:
            code, why = INTERRUPTED, ""
        except Exception as error:
            if not self.pulse.answers():
                return None  # it is judged when the cluster is back; check() gives up some time
            code, why = 1, _reason(error)
        try:
            for point in job.points:
                SharedRun(of(point.config), point.run_dir).pull()
        except Exception as error:
            return 1, f"its records could not be fetched ({_first_line(error)}); the same command tries again"
        return code, why

    def _left_alone(self, job: Job) -> tuple[int, str] | None:
        """Say how a job ended without asking Ray: by its runs' records, as far as they are seen from here."""
        if any(is_being_run(point) for point in job.points):
            return None
        finished = all(run_state(point.run_dir) == "finished" for point in job.points)
        return (0 if finished else INTERRUPTED), ""

    def ask_to_stop(self, job: Job) -> None:
        for point in job.points:
            point.run_dir.mkdir(parents=True, exist_ok=True)
            (point.run_dir / STOP).touch()
            with self._said_only("asked to stop", point):
                SharedRun(of(point.config), point.run_dir).ask_to_stop()

    def kill(self, job: Job) -> None:
        if not self.pulse.lost:
            self.ray.cancel(job.handle, force=True)

    def release(self, job: Job) -> None:
        for point in job.points:
            with self._said_only("released", point):
                self._let(point)

    @contextlib.contextmanager
    def _said_only(self, what: str, point: RunSpec) -> Iterator[None]:
        """Say what storage refuses, and go on: the other runs want to be looked after too."""
        try:
            yield
        except Exception as error:
            self.board.say(f"{point.name} could not be {what} at runtime.remote: {_first_line(error)}")

    def _let(self, point: RunSpec) -> None:
        (point.run_dir / STOP).unlink(missing_ok=True)
        SharedRun(of(point.config), point.run_dir).let_run()


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _reason(error: Exception) -> str:
    """Say why a task gave no exit code: in its own words where it said why, else in Ray's."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, FileNotFoundError):
        return _first_line(cause)
    if isinstance(cause, Exception):
        return f"its Ray task failed: {type(cause).__name__}: {_first_line(cause)}"
    return f"its Ray task was lost: {_first_line(error)}"
