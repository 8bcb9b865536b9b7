"""How many processors a process may use, where containers limit them; on faked control groups."""

from __future__ import annotations

import os
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
