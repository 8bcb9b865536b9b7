"""A shell in a folder of its own that starts the test application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdexp.common.status import state
from tests.warm import Server, Started

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = ("hydra.main", "kdexp.cli.errors", "kdexp.sweep.plugins", "kdexp.sweep.study", "kdexp.launch.local")


def environment() -> dict[str, str]:
    """What all shells have: this folder is looked into by every Python, for its sitecustomize.py."""
    paths = f"{ROOT}{os.pathsep}{HERE}"
    return {k: v for k, v in os.environ.items() if k != "KDEXP_STORE"} | {"PYTHONPATH": paths, "COLUMNS": "200"}


@pytest.fixture(scope="session")
def shells() -> Iterator[Server | None]:
    """The process that those of the test application are forked from."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    running = Server(environment(), MODULES)
    yield running
    running.close()


class Shell:
    """Starts the test application in a folder of its own."""

    def __init__(self, where: Path, server: Server | None):
        self.where, self.server = where, server
        self.count = where / "count.txt"
        self.env = environment() | {"STUB_COUNT": str(self.count)}

    def start(self, *arguments: str, **env: str) -> Started | subprocess.Popen[str]:
        app, variables = str(HERE / "app.py"), {**self.env, **env}
        if self.server is not None and self.server.fits(variables):
            return self.server.start(app, arguments, self.where, variables)
        return subprocess.Popen(
            [sys.executable, app, *arguments],
            cwd=self.where, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
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
def shell(tmp_path: Path, shells: Server | None) -> Shell:
    return Shell(tmp_path, shells)


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for something that another process does."""

    def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.time() + seconds
        while not condition():
            assert time.time() < end, "it did not happen in time"
            time.sleep(0.02)

    return wait
