"""``hydra/launcher=submitit``: every run is a Slurm job; jobs that start together are one array.

Before its time is up, or when it is preempted, a job gets SIGUSR2: the run saves itself at its next step, and the job
goes back into the queue and continues there. ``executor=local`` does the same with processes of this machine.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdexp.common import machine
from kdexp.launch.base import Outcome, Source
from kdexp.launch.board import Board
from kdexp.launch.child import STOP, Order
from kdexp.launch.local import at_least_one, few_gpus, needs_package
from kdexp.launch.pool import Job, Parallel, Pool, terminated_like_interrupted
from kdexp.launch.slots import THREADS
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

    def serve(self, source: Source, board: Board) -> list[Outcome]:
        """See :class:`~kdexp.launch.base.Launcher`."""
        import submitit

        local = self.executor == "local"
        count = self.asked or (max(1, machine.cores() // self.threads) if local else 64)
        slots = max(1, min(count, source.size))
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

    def begin(self, points: list[RunSpec]) -> list[Job]:
        executor = self._executor(points[0].run_dir.parent)
        env = {name: str(self.settings.threads) for name in THREADS}
        handles = []
        with contextlib.ExitStack() as stack:
            if self.settings.executor == "slurm" and len(points) > 1:
                stack.enter_context(executor.batch())
            for point in points:
                (point.run_dir / STOP).unlink(missing_ok=True)
                order = Order.of(point, env, os.getcwd(), far=True)
                handles.append(executor.submit(order))
        return [Job(point, handle, None, time.time()) for point, handle in zip(points, handles, strict=True)]

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
        (job.point.run_dir / STOP).parent.mkdir(parents=True, exist_ok=True)
        (job.point.run_dir / STOP).touch()
        if job.handle.state.startswith("PENDING"):
            job.handle.cancel()

    def kill(self, job: Job) -> None:
        job.handle.cancel()

    def release(self, job: Job) -> None:
        (job.point.run_dir / STOP).unlink(missing_ok=True)
