"""``hydra/launcher=local``: every run in a process of its own, as many at once as the machine holds.

Processes are forked from one that has imported PyTorch and transformers already (Python's forkserver), so starting
one costs a tenth of a second instead of four, and memory is given back when a run ends. A run that dies is marked
and the others go on.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

from kdexp.common.machine import ALLOCATOR, variables
from kdexp.launch.base import Outcome, Source, devices, each
from kdexp.launch.board import Board
from kdexp.launch.child import Order, work
from kdexp.launch.pool import Job, Parallel, Pool, terminated_like_interrupted
from kdexp.launch.slots import THREADS, free_memory_gb, slots, visible_gpus
from kdexp.run.spec import RunSpec


class Local(Parallel):
    """Runs points in processes of their own.

    Args:
        slots: runs at once; None = one a GPU, else cores / threads.
        threads: threads a run; None = 1 on a CPU, a share of the cores on GPUs.
        memory_gb: memory a run is expected to need: fewer slots where it is not there. None = do not look.
        gpus: GPUs a run; None = as many as the run with most of them asks for (``runtime.devices``).

    Raises:
        ValueError: fewer than one slot or thread.
    """

    preload = ("kdexp.launch.preload",)

    def __init__(
        self,
        slots: int | None = None,
        threads: int | None = None,
        memory_gb: float | None = None,
        gpus: int | None = None,
    ):
        super().__init__()
        at_least_one(slots=slots, threads=threads, gpus=gpus)
        self.asked, self.threads, self.memory_gb, self.gpus = slots, threads, memory_gb, gpus

    def problems(self, wanted: frozenset[str], each: int = 1) -> list[str]:
        """See :class:`~kdexp.launch.base.Launcher`: a run sees the GPUs of its slot, and no other."""
        numbered = sorted(device for device in wanted if device.startswith("cuda:") and device != "cuda:0")
        if self.gpus is not None and self.gpus < each and wanted != {"cpu"}:
            return [few_gpus(self.gpus, each)]
        have = len(visible_gpus()) if self.gpus and wanted != {"cpu"} else 0
        if self.gpus and 0 < have < self.gpus:
            return [f"hydra.launcher.gpus={self.gpus} but this machine has {have} GPU(s): use at most {have}."]
        return super().problems(wanted, each) or [
            f"runtime.device={device}: each run of a grid has a GPU of its own, so there is none of that number; use "
            "runtime.device=cuda."
            for device in numbered
        ]

    def at_once(self, points: Sequence[RunSpec]) -> int | None:
        """See :class:`~kdexp.launch.base.Launcher`."""
        return len(self._slots(devices(points), each(points)))

    def memory_each(self, points: Sequence[RunSpec]) -> float | None:
        """See :class:`~kdexp.launch.base.Launcher`."""
        return free_memory_gb() / len(self._slots(devices(points), each(points)))

    def prepare(self, points: list[RunSpec]) -> None:
        """See :class:`~kdexp.launch.base.Launcher`: the process that runs are forked from loads its libraries."""
        _forkserver(self._slots(devices(points), each(points))[0], self.preload)

    def _slots(self, wanted: frozenset[str], each: int) -> list[dict[str, str]]:
        return slots(self.asked, self.threads, self.memory_gb, set(wanted), self.gpus or each)

    def serve(self, source: Source, board: Board) -> list[Outcome]:
        """See :class:`~kdexp.launch.base.Launcher`."""
        free = self._slots(source.devices, source.each)[: max(1, source.size)]
        with terminated_like_interrupted():
            context = _forkserver(free[0], self.preload)
            board.start(slots=len(free))
            return _Processes(board, context, free).run(source)


class _Processes(Pool):
    """Runs in processes of this machine; a slot is the environment that names its threads and its GPU."""

    def __init__(self, board: Board, context: Any, free: list[dict[str, str]]):
        super().__init__(board)
        self.context, self.free = context, list(free)

    def room(self) -> int:
        return len(self.free)

    def begin(self, cohorts: list[list[RunSpec]]) -> list[Job]:
        started = []
        for points in cohorts:
            env = self.free.pop(0)
            process = self.context.Process(target=work, args=(Order.of(points, env),), name=points[0].name)
            process.start()
            started.append(Job(points, process, env, time.time()))
        return started

    def wait(self, seconds: float) -> None:
        wait([job.handle.sentinel for job in self.jobs], timeout=seconds)

    def over(self, job: Job) -> tuple[int, str] | None:
        return None if job.handle.is_alive() else (job.handle.exitcode, "")

    def release(self, job: Job) -> None:
        self.free.append(job.slot)
        job.handle.close()

    def ask_to_stop(self, job: Job) -> None:
        job.handle.terminate()

    def kill(self, job: Job) -> None:
        job.handle.kill()
        job.handle.join()


def at_least_one(**settings: int | None) -> None:
    """Check settings of a launcher.

    Raises:
        ValueError: one is neither null nor a whole number above 0.
    """
    for name, value in settings.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"hydra.launcher.{name}={value}: at least 1, or null for this machine's own number.")


def few_gpus(given: float, each: int) -> str:
    """Say that a launcher gives a run fewer GPUs than it asks for."""
    return (
        f"hydra.launcher.gpus={given:g} gives a run {given:g} GPU(s) and runtime.devices={each} asks for {each}: "
        f"use hydra.launcher.gpus={each}."
    )


def needs_package(name: str, extra: str) -> None:
    """Check that an optional package is installed, without importing it.

    Raises:
        ValueError: it is not; the message has the command that installs it.
    """
    if importlib.util.find_spec(name) is None:
        raise ValueError(
            f"hydra/launcher={name} needs the package {name}: pip install 'kdexp[{extra}]' (or pip install {name})"
        )


def _forkserver(env: dict[str, str], preload: tuple[str, ...]) -> Any:
    """Start the process that runs are forked from; it reads these settings when it starts and loads the libraries."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    with variables({name: env[name] for name in (*THREADS, *ALLOCATOR) if name in env}):
        forkserver.ensure_running()
    return context
