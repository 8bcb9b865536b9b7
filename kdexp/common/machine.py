"""What this machine is and what is decided for it: device, dtype, compilation."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from kdexp import __version__


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags (empty where the system does not list them)."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows control groups; containers and batch systems limit processors there."""
MEMBERSHIP = Path("/proc/self/cgroup")
"""Names this process's control groups, a line each: ``number:controllers:/path``; version 2 has no controllers."""


def cores() -> int:
    """Return the processors that this process may use: its affinity, and the quotas of its control groups."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *(round(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield the processors that this process's control groups, and those around them, are allowed; of both versions."""
    lines = MEMBERSHIP.read_text().splitlines() if MEMBERSHIP.is_file() else []
    for line in lines or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = CGROUPS / "cpu" if controllers else CGROUPS
        group = top / path.strip("/")  # in a container the path may be the host's; the top is then the group itself
        for place in [group, *group.parents[: len(group.parts) - len(top.parts)]]:
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no quota
                if controllers:
                    quota, period = ((place / f"cpu.cfs_{key}_us").read_text() for key in ("quota", "period"))
                else:
                    quota, period = (place / "cpu.max").read_text().split()
                if int(quota) > 0:  # version 1 writes -1 for none
                    yield int(quota) / int(period)


def decide_device(asked: str) -> str:
    """Return ``cpu`` or ``cuda[:N]``; ``auto`` is the GPU if there is one.

    Raises:
        ValueError: a GPU was asked for that is not there.
    """
    if asked == "cpu":
        return "cpu"
    if asked == "auto" and not Path("/proc/driver/nvidia").exists() and not os.environ.get("CUDA_VISIBLE_DEVICES"):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        count, number = torch.cuda.device_count(), int(asked.partition(":")[2] or 0)
        if number >= count:
            raise ValueError(
                f"runtime.device={asked} but PyTorch sees {count} GPU(s), numbered from 0: use runtime.device=cuda."
            )
        return "cuda" if asked == "auto" else asked
    if asked != "auto":
        raise ValueError(f"runtime.device={asked} but PyTorch sees no GPU: use runtime.device=cpu, or auto.")
    return "cpu"


def problems(device: str) -> list[str]:
    """Return why a device cannot be had on this machine, as a sentence for people; [] = it can."""
    try:
        decide_device(device)
    except ValueError as error:
        return [str(error)]
    return []


def decide_dtype(asked: str, device: str) -> str:
    """Return ``fp32`` or ``bf16``; ``auto`` takes bf16 where the hardware computes in it."""
    if asked != "auto":
        return asked
    if decide_device(device) == "cpu":
        return "bf16" if {"avx512_bf16", "amx_bf16"} & cpu_flags() else "fp32"
    import torch

    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def decide_compile(asked: str, device: str, flops: float, threads: int) -> dict[str, Any]:
    """Decide whether a stage is compiled, from its size alone (so that the same run decides alike every time).

    On a CPU compiling saves about a tenth of the time and costs about 40 s, so a stage must be estimated at over
    10 minutes. The estimate assumes 30 GFLOP/s a thread.

    Returns:
        ``{"asked", "decided", "why"}``.
    """
    if asked in ("true", "false"):
        return {"asked": asked, "decided": asked == "true", "why": f"runtime.compile={asked}"}
    if device.startswith("cuda"):
        return {"asked": asked, "decided": True, "why": "a GPU always earns it back"}
    seconds = flops / (30e9 * max(1, threads))
    decided = seconds > 600
    why = f"estimated {seconds:.0f} s on {threads} thread(s); compiling pays from about 600 s on a CPU"
    return {"asked": asked, "decided": decided, "why": why}


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    from importlib.metadata import version

    found = {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}
    return {"kdexp": __version__, "python": platform.python_version(), **found}


def hardware(device: str) -> str:
    """Return one line about the processor that computes."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name())
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {cores()} cores"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()}, {cores()} cores"
