"""``python -m kdexp.delivery.timing JSON``: how long one form of one model takes, in a process of its own.

A process of its own, so that its memory is its own and no other form's threads are about.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from kdexp.common.registry import build
from kdexp.delivery import form as forms

BATCHES = (1, 32)
WARM, LEAST, SECONDS = 5, 20, 4.0
"""Calls that do not count; the fewest that do; seconds after which no further one is begun."""


def measure(form: str, folder: Path, settings: dict[str, Any], texts: Path, threads: int) -> dict[str, Any]:
    """Time a form in another process.

    Args:
        form: its name.
        folder: where it is.
        settings: of the task.
        texts: batches of inputs, as :func:`save` writes them.
        threads: it may use.

    Returns:
        ``latency_ms`` and ``p95_ms`` by batch size (text), ``examples_per_s`` of the largest, peak ``memory_mb``.

    Raises:
        RuntimeError: the process failed; the end of what it printed.
    """
    asked = {"form": form, "folder": str(folder), "task": settings, "texts": str(texts), "threads": threads}
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "kdexp.delivery.timing", json.dumps(asked)],
        capture_output=True, text=True, env=env, check=False,
    )  # fmt: skip
    if done.returncode:
        printed = " ".join((done.stderr or done.stdout).split())
        raise RuntimeError(f"timing {form} failed: {printed[-500:]}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def save(path: Path, batches: dict[int, list[dict[str, np.ndarray]]]) -> None:
    """Write batches of inputs, by batch size."""
    flat = {
        f"{size}/{number}/{name}": values
        for size, some in batches.items()
        for number, one in enumerate(some)
        for name, values in one.items()
    }
    np.savez(path, **flat)  # type: ignore[arg-type]


def _read(path: Path) -> dict[int, list[dict[str, Any]]]:
    import torch

    read: dict[int, dict[int, dict[str, Any]]] = {}
    with np.load(path) as kept:
        for key in kept.files:
            size, number, name = key.split("/")
            read.setdefault(int(size), {}).setdefault(int(number), {})[name] = torch.from_numpy(kept[key])
    return {size: [some[number] for number in sorted(some)] for size, some in read.items()}


def main() -> int:
    """Load, warm up, time, print JSON."""
    asked = json.loads(sys.argv[1])
    run = forms.form(asked["form"]).load(Path(asked["folder"]), build(asked["task"]).head, asked["threads"])
    told: dict[str, Any] = {"latency_ms": {}, "p95_ms": {}}
    for size, batches in _read(Path(asked["texts"])).items():
        for number in range(WARM):
            run(batches[number % len(batches)])
        spent, began = list[float](), time.perf_counter()
        while len(spent) < max(LEAST, len(batches)) and (len(spent) < LEAST or time.perf_counter() - began < SECONDS):
            before = time.perf_counter()
            run(batches[len(spent) % len(batches)])
            spent.append(time.perf_counter() - before)
        told["latency_ms"][str(size)] = round(1000 * float(np.median(spent)), 3)
        told["p95_ms"][str(size)] = round(1000 * float(np.quantile(spent, 0.95)), 3)
        told["examples_per_s"] = round(size * len(spent) / sum(spent), 1)
    told["memory_mb"] = peak_mb()
    print(json.dumps(told))
    return 0


def peak_mb() -> float:
    """Return the most memory that this process has held, in MiB.

    As the kernel counts it since the program began: what ``getrusage`` says includes the process that started it.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return round(int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024, 1)
    except (OSError, StopIteration):
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


if __name__ == "__main__":
    sys.exit(main())
