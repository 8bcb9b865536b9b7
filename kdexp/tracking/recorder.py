"""What a run records while it goes on: its numbers and the machine's load, into its own ``metrics.jsonl``."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from pathlib import Path
from typing import Any

from kdexp.common.files import read_note
from kdexp.common.locks import is_locked
from kdexp.tracking.files import MARKER, METRICS, SYSTEM, MetricsFile
from kdexp.tracking.follow import FOLLOWED, Follower
from kdexp.tracking.mlflow_store import DEFAULTS, problems

log = logging.getLogger("kdexp.tracking")

LOAD_S = 30.0  # between two samples of the machine's load
MB = 1e6


class Tracker:
    """The numbers of one run, in the process that trains.

    What is logged stands in ``metrics.jsonl`` when :meth:`log` returns; no thread, no network, no MLflow in this
    process. A run of a study is shown by the study's process; one that runs alone has a :class:`~.follow.Follower`
    beside it. Trouble with the store is one warning.

    Args:
        run_dir: the run's folder ``multirun/<study>/<name>``. It holds the run's config and status already.
        settings: of ``conf/tracking``.

    Raises:
        OSError: the run's own ``metrics.jsonl`` cannot be written.
    """

    def __init__(self, run_dir: Path, settings: dict[str, Any]) -> None:
        self.run_dir, self.settings = run_dir, {**DEFAULTS, **settings}
        self.file = MetricsFile(run_dir / METRICS)
        self.follower: Follower | None = None
        self._warned = False
        self._asked = self._sampled = time.monotonic()
        self._samples = self.file.system_samples()
        self._wanted = bool(self.settings["enabled"])
        wrong = problems(self.settings) if self._wanted else []
        if wrong:
            log.warning("tracking: %s; this run is kept in %s only", "; ".join(wrong), self.file.path)
            self._wanted = False
        if self.settings["system_metrics"]:
            load()  # the processor's share is counted from here

    def log(self, stage: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Append one line to ``metrics.jsonl``; tens of microseconds.

        Args:
            stage: name of the stage, e.g. ``distill.prediction``; becomes the prefix of the metrics' names.
            step: optimiser steps done in this stage.
            epoch: epoch of this stage.
            values: numbers by name, e.g. ``{"train/loss": 0.3}``; anything that ``float`` takes.

        Raises:
            OSError: the file cannot be written (full disk).
        """
        self.file.append(stage, step, epoch, values)
        now = time.monotonic()
        if now - self._sampled >= LOAD_S:
            self._sample(now)
        self._follow()  # not before the first number: MLflow's import would take a core from the run's own imports
        if self.follower is not None and now - self._asked >= self.settings["every_s"]:
            self._asked = now
            self._look()

    def close(self) -> None:
        """Have the rest and the end of the run shown. Call it after ``result.json`` and ``status.json`` were written.

        Returns within ``tracking.timeout_s`` seconds. The follower goes on for a moment if it is not done by then; what
        it could not show is made good by ``python -m kdexp.tracking sync``.
        """
        with contextlib.suppress(OSError):  # every line was handed to the system long ago
            self._sample(time.monotonic())
            self.file.close()
        self._follow()
        if self.follower is not None:
            self._warn(self.follower.close(self.settings["timeout_s"]))

    def _sample(self, now: float) -> None:
        if self.settings["system_metrics"]:
            self._sampled, self._samples = now, self._samples + 1
            self.file.append(SYSTEM, self._samples, 0, load())

    def _follow(self) -> None:
        """Start the follower, unless the run is one of a study that looks after it."""
        if self._wanted:
            self._wanted = False
            if not is_locked(self.run_dir.parent / FOLLOWED):
                self.follower = Follower(self.run_dir.parent, self.settings, run=self.run_dir.name)

    def _look(self) -> None:
        """Read what the follower has noted: the run shall hear of trouble while it lasts, and once."""
        assert self.follower is not None
        note = self.run_dir / MARKER
        if not note.exists() or note.stat().st_mtime < self.follower.began:
            return  # an earlier attempt's
        content = read_note(note)
        if content.get("state") == "behind":
            self._warn(str(content.get("error")))
        elif self._warned:
            self._warned = False
            log.info("tracking: %s takes numbers again", content.get("uri"))

    def _warn(self, why: str) -> None:
        if why and not self._warned:
            self._warned = True
            log.warning(
                "tracking: the store does not take this run's numbers now (%s). The run goes on, everything is in %s; "
                "show it later with: python -m kdexp.tracking sync root=%s study=%s",
                why,
                self.file.path,
                self.run_dir.parent.parent,
                self.run_dir.parent.name,
            )


def load() -> dict[str, float]:
    """The machine's load, under the names that MLflow's UI shows as system metrics; without psutil there is none.

    CPU numbers cover the time since the previous call. GPU numbers come from torch's own allocator (no CUDA call, so
    they disturb neither a training step nor a graph capture) and only once torch runs on a GPU.
    """
    try:
        import psutil
    except ImportError:
        return {}
    memory = psutil.virtual_memory()
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / MB,
        "system_memory_usage_percentage": memory.percent,
        "process_memory_megabytes": psutil.Process().memory_info().rss / MB,
    }
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_available() and cuda.is_initialized():
        for device in range(cuda.device_count()):
            values[f"gpu_{device}_memory_allocated_megabytes"] = cuda.memory_allocated(device) / MB
            values[f"gpu_{device}_memory_reserved_megabytes"] = cuda.memory_reserved(device) / MB
    return values
