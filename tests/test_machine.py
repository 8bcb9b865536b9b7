"""How many processors a process may use, where containers limit them (on faked control groups), and its allocator."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from kdexp.common import machine
from kdexp.launch import slots


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the system's control groups, and a process of 64 processors."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_control_groups_affinity_counts(groups: Path) -> None:
    assert machine.cores() == 64


@pytest.mark.parametrize(
    ("limit", "count"), [("max 100000", 64), ("250000 100000", 2), ("20000 100000", 1), ("9900000 100000", 64)]
)
def test_the_quota_of_version_2(groups: Path, limit: str, count: int) -> None:
    write(groups / "cgroup/cpu.max", f"{limit}\n")
    assert machine.cores() == count
    assert slots.cores() == count
    assert machine.hardware("cpu").endswith(f", {count} cores")
    assert len(slots.slots(None, None, None, {"cpu"})) == count


def test_the_tightest_group_around_a_process_counts(groups: Path) -> None:
    write(groups / "membership", "0::/batch/job\n")
    write(groups / "cgroup/batch/cpu.max", "300000 100000\n")
    write(groups / "cgroup/batch/job/cpu.max", "500000 100000\n")
    write(groups / "cgroup/other/cpu.max", "100000 100000\n")
    assert machine.cores() == 3


@pytest.mark.parametrize("path", ["/batch/job", "/docker/a-path-of-the-host"])
def test_the_quota_of_version_1(groups: Path, path: str) -> None:
    write(groups / "membership", f"5:memory:{path}\n4:cpu,cpuacct:{path}\n0::/\n")
    place = groups / "cgroup/cpu" / (path.strip("/") if "batch" in path else "")
    for key, value in (("quota", 400000), ("period", 100000)):
        write(place / f"cpu.cfs_{key}_us", f"{value}\n")
    assert machine.cores() == 4
    write(place / "cpu.cfs_quota_us", "-1\n")
    assert machine.cores() == 64


def test_affinity_is_a_limit_too(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(groups / "cgroup/cpu.max", "800000 100000\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {1, 5})
    assert machine.cores() == 2


PROGRAM = """
import os, sys
from kdexp.launch import local, slots
from tests.test_machine import print_mapped
env = slots.slots(1, 1, None, {"cpu"})[0]
if sys.argv[1] == "without":
    env = {name: value for name, value in env.items() if not name.startswith("MALLOC_")}
context = local._forkserver(env, ())
process = context.Process(target=print_mapped)
process.start()
process.join()
print(sorted(name for name in os.environ if name.startswith("MALLOC_")))
"""


def print_mapped() -> None:
    """Say whether 64 MB are a mapping of their own, which is given back and cleared at every step."""
    import ctypes

    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    address = libc.malloc(ctypes.c_size_t(64 << 20))
    heaps = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]")]
    ranges = [[int(part, 16) for part in heap.split("-")] for heap in heaps]
    print("in the heap" if any(low <= address < high for low, high in ranges) else "mapped", flush=True)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the variables are glibc's")
@pytest.mark.parametrize(("settings", "place"), [("with", "in the heap"), ("without", "mapped")])
def test_a_run_of_the_local_launcher_keeps_its_memory(settings: str, place: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    env["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, settings], env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.splitlines() == [place, "[]"], done.stdout + done.stderr


def test_allocator_settings_of_the_user_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.39"))
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    assert machine.allocator() == {**machine.ALLOCATOR, "MALLOC_MMAP_MAX_": "7"}
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert machine.allocator() == {}
    assert not [name for name in slots.slots(1, 1, None, {"cpu"})[0] if name.startswith("MALLOC_")]


BASE, SMALL = 43e6 * 128 * 6, 5.3e6 * 48 * 6
"""Operations an example: BERT-base's lower half on 128 tokens, 3 layers of width 384 on 48; forwards and backwards."""


@pytest.mark.parametrize(
    ("device", "example", "updates", "batch", "decided"),
    [
        ("cuda", SMALL, 1_000, 32, False),  # ten seconds
        ("cuda", SMALL, 100_000, 32, True),  # by the updates alone
        ("cuda", BASE, 3_000, 32, False),  # a small task of GLUE
        ("cuda:1", BASE, 36_000, 32, True),  # MNLI, three epochs
        ("cpu", SMALL, 300, 32, False),
        ("cpu", BASE, 1_000, 32, True),
    ],
)
def test_only_what_earns_it_back_is_compiled(device: str, example: float, updates: int, batch: int, decided: bool):
    found = machine.decide_compile("auto", "default", device, example * updates * batch, updates, 1)
    assert found["decided"] == decided and "estimated" in found["why"]


@pytest.mark.parametrize(
    ("asked", "mode", "decided"),
    [("true", "default", True), ("false", "default", False), ("auto", "reduce-overhead", True)],
)
def test_who_asks_for_compilation_gets_it(asked: str, mode: str, decided: bool):
    found = machine.decide_compile(asked, mode, "cuda", 1.0, 1, 1)
    assert found["decided"] == decided and "runtime.compile" in found["why"]
