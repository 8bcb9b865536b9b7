"""How many runs fit on this machine at once, and what each of them may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from kdexp.common.machine import allocator, cores

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
"""Read by the numerical libraries when they are loaded, so they are set before."""


def slots(
    asked: int | None, threads: int | None, memory_gb: float | None, devices: set[str], each: int = 1
) -> list[dict[str, str]]:
    """Return one environment a slot; its length is the number of runs at once.

    On GPUs there is one slot for every ``each`` of them. On a CPU there are as many as cores hold with ``threads`` each
    (1 unless asked: four runs of one thread do 1.7 times the work of one run of four), and no more than the free memory
    holds.

    Args:
        asked: number of slots; None = by the machine.
        threads: threads a run; None = 1 on a CPU, an equal share of the cores on GPUs.
        memory_gb: memory a run is expected to need; None = do not look.
        devices: the values of ``runtime.device`` of all points.
        each: devices a run: GPUs that it sees, or processes that it has on a CPU, each with its threads.
    """
    gpus = visible_gpus() if devices != {"cpu"} else []
    if gpus:
        groups = [",".join(gpus[n : n + each]) for n in range(0, len(gpus) - each + 1, each)]
        count = asked or max(1, len(groups))
        share = threads or max(1, cores() // (count * each))
        return [{**_threads(share), "CUDA_VISIBLE_DEVICES": groups[n % len(groups)]} for n in range(count)]
    share = threads or 1
    count = asked or max(1, cores() // (share * each))
    if asked is None and memory_gb:
        count = max(1, min(count, int(free_memory_gb() / memory_gb)))
    return [environment(share * each) for _ in range(count)]  # the run shares them out among its processes


def environment(threads: int, gpus: float = 0) -> dict[str, str]:
    """Return the environment of a process that computes on ``threads`` threads, or on GPUs.

    The allocator's settings are for steps that take and free large blocks of the machine's own memory.
    """
    return {**_threads(threads), **({} if gpus else allocator())}


def _threads(count: int) -> dict[str, str]:
    return {name: str(count) for name in THREADS}


def free_memory_gb() -> float:
    """Return the memory that new processes can have, in GiB."""
    import psutil

    free = psutil.virtual_memory().available
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        free = min(free, limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return free / 2**30


def visible_gpus() -> list[str]:
    """Return the ids of the GPUs that PyTorch sees, as CUDA_VISIBLE_DEVICES wants them; asks a process of its own."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None and not listed.strip(", "):
        return []
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return []
    ask = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    asked = subprocess.run(ask, capture_output=True, text=True, check=False)
    count = int(asked.stdout.split()[-1]) if asked.returncode == 0 and asked.stdout.split() else 0
    names = [name.strip() for name in listed.split(",")] if listed else [str(n) for n in range(count)]
    return names[:count]


def describe(environments: list[dict[str, str]]) -> dict[str, Any]:
    """Return what the slots amount to, for people."""
    first = environments[0]
    gpus = len({gpu for e in environments for gpu in e.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu})
    return {"slots": len(environments), "threads": int(first[THREADS[0]]), "gpus": gpus}
