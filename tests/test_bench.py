"""The benchmark of a step still runs; what it measures is for people, never for a test."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.conftest import REPOSITORY, program_environment


def test_both_loops_are_timed():
    done = subprocess.run(
        [sys.executable, "-m", "bench.step", "steps=1", "batch=2"],
        cwd=REPOSITORY, env=program_environment({}), capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["kdexp", "textbook", "ratio"]
    assert all(float(ms) > 0 for ms in re.findall(r"([\d.]+) ms a step", done.stdout))


def test_the_devices_benchmark_compares_three_ways():
    words = ["layers=2:1", "width=64", "length=16", "batch=4", "vocabulary=100", "steps=1"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", *words],
        cwd=REPOSITORY, env=program_environment({}), capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[3:]]
    assert [row[0] for row in rows] == ["textbook", "live", "cached", "GEMM"]
    assert all(float(row[1]) > 0 for row in rows)
