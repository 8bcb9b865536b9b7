"""What this machine is and what is decided for it: device, dtype, compilation."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kdexp import __version__
from kdexp.common import contributed


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


def launched() -> int:
    """Return how many processes ``torchrun`` has started for this run; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def problems(device: str, count: int = 1) -> list[str]:
    """Return why so many devices cannot be had on this machine, as sentences for people; [] = they can.

    Args:
        device: ``runtime.device``.
        count: ``runtime.devices``.
    """
    try:
        decided = decide_device(device)
    except ValueError as error:
        return [str(error)]
    asked = f"runtime.devices={count}"
    if launched() > 1:  # perhaps on several machines
        count = int(os.environ["LOCAL_WORLD_SIZE"])
        asked = f"torchrun has started {count} processes here"
    if count == 1:
        return []
    have, what = cores(), "processor(s), and each process of a run needs one"
    if decided.startswith("cuda"):
        import torch

        have, what = torch.cuda.device_count(), "GPU(s)"
    if count > have:
        return [f"{asked} but this machine has {have} {what}: use {have}, or fewer."]
    return []


def decide_dtype(asked: str, device: str) -> str:
    """Return ``fp32`` or ``bf16``; ``auto`` takes bf16 where the hardware computes in it."""
    if asked != "auto":
        return asked
    if decide_device(device) == "cpu":
        return "bf16" if {"avx512_bf16", "amx_bf16"} & cpu_flags() else "fp32"
    import torch

    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


EARNED = 600
"""Seconds that a stage must be estimated at for compiling to earn back what it costs: some 40 s on a CPU; on a GPU over
a minute (a BERT-base of 6 layers with one of 12 was not done after 60 s on an H200), what it saves was not measured."""


def decide_compile(asked: str, mode: str, device: str, flops: float, updates: int, threads: int) -> dict[str, Any]:
    """Decide whether a stage is compiled, from its size alone (so that the same run decides alike every time).

    The estimate assumes 30 GFLOP/s a thread of a CPU; on a GPU 10 ms an update, in which Python hands out its work, and
    150 TFLOP/s.

    Args:
        asked, mode: ``runtime.compile`` and ``runtime.compile_mode``; whoever names a mode wants it used.
        device: what computes.
        flops, updates: of the stage.
        threads: of this process.

    Returns:
        ``{"asked", "decided", "why"}``.
    """
    if asked in ("true", "false"):
        return {"asked": asked, "decided": asked == "true", "why": f"runtime.compile={asked}"}
    if mode != "default":
        return {"asked": asked, "decided": True, "why": f"runtime.compile_mode={mode}"}
    if device.startswith("cuda"):
        seconds, where = 0.01 * updates + flops / 150e12, "a GPU"
    else:
        seconds, where = flops / (30e9 * max(1, threads)), f"{threads} thread(s)"
    why = f"estimated {seconds:.0f} s on {where}; compiling pays from about {EARNED} s"
    return {"asked": asked, "decided": seconds > EARNED, "why": why}


UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SMALL = 65_536
"""Bytes of features an example up to which looking them up is taken to be cheaper for a GPU than computing them."""


@dataclass(frozen=True)
class FeatureBudget:
    """How much of what a teacher says may be stored.

    Attributes:
        asked: ``runtime.teacher_cache``.
        phase: bytes that one phase's features may take; 0 = nothing is stored.
        total: bytes that all stored features together may take; what was used longest ago makes room.
        example: bytes an example's features may take; None = any.
    """

    asked: str
    phase: int
    total: int
    example: int | None = None

    def refuses(self, need: int, examples: int) -> str | None:
        """Say why ``need`` bytes for so many examples are too much; None if they are not."""
        if self.example is not None and need > self.example * examples:
            return (
                f"its features need {need / examples / 1e6:.2f} MB an example, and runtime.teacher_cache={self.asked} "
                f"stores up to {self.example / 1e6:.2f} MB an example for a GPU"
            )
        if need > self.phase:
            return (
                f"its features need {amount(need)}, and runtime.teacher_cache={self.asked} allows {amount(self.phase)}"
            )
        return None


def amount(size: int) -> str:
    """Return a number of bytes for people."""
    unit = next((unit for unit in ("TB", "GB", "MB") if size >= UNITS[unit]), "KB")
    return f"{size / UNITS[unit]:.1f} {unit}"


def decide_teacher_cache(asked: str, device: str, place: Path) -> FeatureBudget:
    """Decide how much of what a teacher says may be stored, from the setting and the machine's size alone.

    What is free at the moment does not count: what a run computes must not depend on what else lies on the disk. Asked
    for ``auto``, a phase may store a quarter of the machine's memory, so that its features stay in memory while they
    are read, and all phases together a tenth of the disk (at least one phase's). On a GPU, which computes faster than
    sequences are read, only what is small an example (:data:`SMALL`).

    Args:
        asked: ``auto``, ``off``, or a size such as ``4GB``, which then bounds a phase and all together.
        device: what computes.
        place: the store; the nearest folder that exists says which disk.
    """
    if asked == "off":
        return FeatureBudget(asked, 0, 0)
    if asked != "auto":
        size = int(float(asked[:-2]) * UNITS[asked[-2:]])
        return FeatureBudget(asked, size, size)
    place = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    phase = memory() // 4
    total = max(phase, shutil.disk_usage(place).total // 10)
    return FeatureBudget(asked, phase, total, SMALL if device.startswith("cuda") else None)


def memory() -> int:
    """Return the bytes of memory that this machine has, or that its control group allows."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
            limits.append(int((CGROUPS / name).read_text()))
    return min(limits)


ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1000000000000"}
"""Let the C library keep large blocks that a process frees: each step asks for the same sizes again.

Without them every step maps and clears the same memory anew (``sys`` time, page faults). Read when a process starts.
"""


def allocator() -> dict[str, str]:
    """Return the variables of :data:`ALLOCATOR` for a new process, where its C library is glibc; set ones stay."""
    if platform.libc_ver()[0] != "glibc":
        return {}
    return {name: os.environ.get(name, value) for name, value in ALLOCATOR.items()}


@contextlib.contextmanager
def variables(values: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment for processes that are started meanwhile, here or by a cluster's queue."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


PEAKS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Operations a second in bf16 that makers state for their GPUs (dense), by a part of the name; the first that fits."""


def peak_flops(device: str, dtype: str) -> float | None:
    """Return the operations a second that a device's maker states for what it computes in; None if it is not known."""
    if not device.startswith("cuda") or dtype != "bf16":
        return None
    name = hardware(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    found = {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}
    brought = {plugin.distribution: plugin.version for plugin in contributed.usable()}
    return {"kdexp": __version__, "python": platform.python_version(), **found, **brought}


@lru_cache
def version(package: str) -> str:
    """Return the version of an installed package; its metadata are parsed once a process."""
    from importlib import metadata

    return metadata.version(package)


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
