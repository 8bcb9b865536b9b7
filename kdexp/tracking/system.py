"""Machine load of a run, written into its metrics file: a few numbers every half minute, by a thread of its own."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MB = 1e6


def sample() -> dict[str, float]:
    """Current load, under the names that MLflow's UI shows as system metrics.

    CPU numbers cover the time since the previous call. GPU numbers come from torch's own allocator (no CUDA call, so
    they disturb neither a training step nor a graph capture) and only once torch runs on a GPU.
    """
    import psutil

    memory = psutil.virtual_memory()
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / MB,
        "system_memory_usage_percentage": memory.percent,
        "process_memory_megabytes": psutil.Process().memory_info().rss / MB,
    }
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_available() and cuda.is_initialized():
        for device in range(cuda.device_count()):
            values[f"gpu_{device}_memory_allocated_megabytes"] = cuda.memory_allocated(device) / MB
            values[f"gpu_{device}_memory_reserved_megabytes"] = cuda.memory_reserved(device) / MB
    return values


class Sampler:
    """Calls ``write(values)`` every ``every_s`` seconds from a thread of its own, and once more at the end."""

    def __init__(self, write: Callable[[dict[str, float]], None], every_s: float = 30.0) -> None:
        self._write, self._every = write, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kdexp-system-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            import psutil

            psutil.cpu_percent()  # the first call only sets the start of the interval
            stopped = False
            while not stopped:
                stopped = self._stop.wait(self._every)
                self._write(sample())
        except Exception:
            return  # load is a nicety: without psutil, or on a full disk, there simply is none

    def stop(self) -> None:
        """Take the last sample and end; at most a second."""
        self._stop.set()
        self._thread.join(1.0)
