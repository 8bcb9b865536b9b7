"""``hydra/launcher=submitit``: every run is a Slurm job; jobs that start together are one array.

Before its time is up, or when it is preempted, a job gets SIGUSR2: the run saves itself at its next step, and the job
goes back into the queue and continues there. ``executor=local`` does the same with processes of this machine.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdexp.common import machine
from kdexp.launch.base import Outcome, Source
from kdexp.launch.board import Board
from kdexp.launch.child import STOP, Order
from kdexp.launch.local import at_least_one, few_gpus, needs_package
from kdexp.launch.pool import Job, Parallel, Pool, terminated_like_interrupted
from kdexp.launch.slots import environment
from kdexp.run.spec import RunSpec

EXECUTORS = ("slurm", "local")


class Submitit(Parallel):
    """Runs points as Slurm jobs.

    Args:
        executor: ``slurm`` or ``local``.
        slots: jobs in the queue at once; None = 64 on Slurm, this machine's own number with ``local``.
        threads: cores a run.
        gpus: GPUs a run.
        memory_gb: memory a run; None = the partition's default.
        timeout_min: minutes after which a job is asked to save itself and is queued again.
        requeues: how often that may happen to one job.
        parameters: further parameters of submitit's executor, such as ``slurm_partition``.

    Raises:
        ValueError: a setting cannot work.
    """

    patient = True  # a job that only waits is paid for

    def __init__(
        self,
        executor: str = "slurm",
        slots: int | None = None,
        threads: int = 1,
        gpus: int = 0,
        memory_gb: float | None = None,
        timeout_min: int = 240,
        requeues: int = 10,
        parameters: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        needs_package("submitit", "slurm")
        at_least_one(slots=slots, threads=threads, timeout_min=timeout_min)
        if executor not in EXECUTORS:
            raise ValueError(f"hydra.launcher.executor={executor}: choose one of {', '.join(EXECUTORS)}.")
        self.executor, self.asked, self.threads, self.gpus = executor, slots, threads, gpus
        self.memory_gb, self.timeout_min, self.requeues = memory_gb, timeout_min, requeues
        self.parameters = dict(parameters or {})

    def problems(self, wanted: frozenset[str], each: int = 1) -> list[str]:
        """See :class:`~kdexp.launch.base.Launcher`: runs are carried out elsewhere."""
        if each > 1 and wanted != {"cpu"} and self.gpus < each:
            return [few_gpus(self.gpus, each)]
        return []

    @property
    def _slots(self) -> int:
        if self.asked:
            return self.asked
        return max(1, machine.cores() // self.threads) if self.executor == "local" else 64

    def at_once(self, points: Sequence[RunSpec]) -> int | None:
        """See :class:`~kdexp.launch.base.Launcher`."""
        return self._slots

    def memory_each(self, points: Sequence[RunSpec]) -> float | None:
        """See :class:`~kdexp.launch.base.Launcher`."""
        return self.memory_gb

    def serve(self, source: Source, board: Board) -> list[Outcome]:
        """See :class:`~kdexp.launch.base.Launcher`."""
        import submitit

        slots = max(1, min(self._slots, source.size))
        with terminated_like_interrupted():
            board.start(slots=slots)
            return _Jobs(self, board, submitit, slots).run(source)


class _Jobs(Pool):
    """Runs in jobs of submitit."""

    def __init__(self, launcher: Submitit, board: Board, submitit: Any, slots: int):
        super().__init__(board)
        self.settings, self.submitit, self.slots = launcher, submitit, slots

    def room(self) -> int:
        return self.slots - len(self.jobs)

    def begin(self, cohorts: list[list[RunSpec]]) -> list[Job]:
        executor = self._executor(cohorts[0][0].run_dir.parent)
        env = environment(self.settings.threads, self.settings.gpus)
        handles = []
        with contextlib.ExitStack() as stack:
            stack.enter_context(machine.variables({name: env[name] for name in machine.ALLOCATOR if name in env}))
            if self.settings.executor == "slurm" and len(cohorts) > 1:
                stack.enter_context(executor.batch())
            for points in cohorts:
                for point in points:
                    (point.run_dir / STOP).unlink(missing_ok=True)
                order = Order.of(points, env, os.getcwd(), far=True)
                handles.append(executor.submit(order))
        return [Job(points, handle, None, time.time()) for points, handle in zip(cohorts, handles, strict=True)]

    def _executor(self, study: Path) -> Any:
        executor = self.submitit.AutoExecutor(
            folder=study / ".submitit" / "%j",
            cluster=self.settings.executor,
            slurm_max_num_timeout=self.settings.requeues,
        )
        known: dict[str, Any] = {"name": study.name, "timeout_min": self.settings.timeout_min}
        if self.settings.executor == "slurm":
            known |= {"cpus_per_task": self.settings.threads, "slurm_array_parallelism": self.slots}
        if self.settings.gpus:
            known["gpus_per_node"] = self.settings.gpus
        if self.settings.memory_gb:
            known["mem_gb"] = self.settings.memory_gb
        executor.update_parameters(**known, **self.settings.parameters)
        return executor

    def over(self, job: Job) -> tuple[int, str] | None:
        if not job.handle.done():
            return None
        try:
            return int(job.handle.result()), ""
        except Exception as error:  # submitit's own words for a job that left no result
            lines = [line for line in str(error).splitlines() if line.strip()]
            paths = job.handle.paths
            return (
                1,
                f"its job {job.handle.job_id} ended without a result ({job.handle.state}): "
                f"{lines[0] if lines else error}; see {paths.stderr}",
            )

    def ask_to_stop(self, job: Job) -> None:
        for point in job.points:
            point.run_dir.mkdir(parents=True, exist_ok=True)
            (point.run_dir / STOP).touch()
        if job.handle.state.startswith("PENDING"):
            job.handle.cancel()

    def kill(self, job: Job) -> None:
        job.handle.cancel()

    def release(self, job: Job) -> None:
        for point in job.points:
            (point.run_dir / STOP).unlink(missing_ok=True)
