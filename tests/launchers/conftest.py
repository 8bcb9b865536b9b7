"""A shell in a folder of its own that starts the test application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdexp.common.status import state

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Shell:
    """Starts the test application in a folder of its own."""

    def __init__(self, where: Path):
        self.where = where
        self.count = where / "count.txt"
        self.env = {
            **os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1",
            "STUB_COUNT": str(self.count), "COLUMNS": "200",
        }  # fmt: skip
        self.env.pop("KDEXP_STORE", None)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(HERE / "app.py"), *arguments],
            cwd=self.where, env={**self.env, **env}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str, **env: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **env)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def executions(self) -> list[list[str]]:
        """One entry an execution: name, pid, parent pid."""
        return [line.split() for line in self.count.read_text().splitlines()] if self.count.exists() else []

    def states(self, name: str) -> dict[str, str]:
        folder = self.where / "multirun" / name
        points = json.loads((folder / "study.json").read_text())["points"]
        return {point["name"]: state(folder / point["name"]) for point in points}

    def result(self, name: str, run: str) -> dict:
        return json.loads((self.where / "multirun" / name / run / "result.json").read_text())


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for something that another process does."""

    def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.time() + seconds
        while not condition():
            assert time.time() < end, "it did not happen in time"
            time.sleep(0.02)

    return wait
