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
