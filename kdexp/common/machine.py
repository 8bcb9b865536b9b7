"""What this machine is and what is decided for it: device, dtype, compilation."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any


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


def cores() -> int:
    """Return the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decide_device(asked: str) -> str:
    """Return ``cpu`` or ``cuda[:N]``; ``auto`` is the GPU if there is one.

    Raises:
        ValueError: a GPU was asked for and there is none.
    """
    if asked == "cpu":
        return "cpu"
    if asked == "auto" and not Path("/proc/driver/nvidia").exists() and not os.environ.get("CUDA_VISIBLE_DEVICES"):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda" if asked == "auto" else asked
    if asked != "auto":
        raise ValueError(f"runtime.device={asked} but PyTorch sees no GPU: use runtime.device=cpu, or auto.")
    return "cpu"


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

    from kdexp import __version__

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
