"""MLflow's tables on a machine that takes long to make them: waited for, by one process, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from kdexp.common import sqlite
from kdexp.tracking import mlflow_store
from kdexp.tracking.mlflow_store import TrackingError, create
from tests.conftest import REPOSITORY, program_environment
from tests.test_runs import toy

SLOW = """import sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "mlflow":
            time.sleep({seconds})

if "_migrate" in " ".join(sys.orig_argv):
    sys.meta_path.insert(0, Slow())
"""


def slowly(folder: Path, seconds: float) -> dict[str, str]:
    """The environment in which the process that makes the tables takes long to import MLflow."""
    place = folder / "slow"
    place.mkdir()
    (place / "sitecustomize.py").write_text(SLOW.format(seconds=seconds))
    return {"PYTHONPATH": os.pathsep.join([str(place), str(REPOSITORY)])}


def creators() -> set[int]:
    """Processes that make tables."""
    return {p.pid for p in psutil.process_iter(["cmdline"]) if "_migrate(" in " ".join(p.info["cmdline"] or [])}


@pytest.mark.parametrize("words", [["-m", "seed=1", "study=alone"], ["study=alone", "tracking.timeout_s=1"]])
def test_runs_that_ended_before_the_store_was_there_are_shown(
    words: list[str], kdexp, tiny_bert_dir: Path, tiny_csv_task: Path, shown, tmp_path: Path
):
    """A study waits for it at its end; a single run leaves that to its follower."""
    Path(shown.path).unlink()
    fast = [word for word in toy(tiny_bert_dir, tiny_csv_task) if word != "tracking=off"]
    done = kdexp([*words, "objective=kd", *fast], env=slowly(tmp_path, 15 if "-m" in words else 25))
    assert done.returncode == 0, done.stderr
    assert "_migrate" not in done.stdout + done.stderr and "Command" not in done.stderr
    if "-m" in words:
        assert "warning" not in done.stderr and Path(shown.path).is_file()
    deadline = time.monotonic() + 120
    while not (Path(shown.path).is_file() and shown.runs()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(shown.runs()) == 1
    assert not [p for p in Path(shown.path).parent.iterdir() if p.name.startswith(".mlflow")]


def test_nobody_makes_tables_for_a_process_that_is_gone(tmp_path: Path):
    path, before = tmp_path / "a b%2Fc" / "mlflow.db", creators()
    code = f"from kdexp.tracking.mlflow_store import create; create({sqlite.address(path)!r})"
    environment = program_environment(slowly(tmp_path, 120))
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 60
    while not creators() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert creators() - before
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    while (creators() - before or len(list(path.parent.iterdir())) > 1) and time.monotonic() < deadline:
        time.sleep(0.05)
    (lock,) = path.parent.iterdir()
    assert lock.name == "mlflow.db.lock" and not creators() - before


def test_a_machine_that_is_too_busy_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in slowly(tmp_path, 60).items():
        monkeypatch.setenv(name, value)
    path, before = tmp_path / "store" / "mlflow.db", creators()
    with pytest.raises(
        TrackingError, match=rf"MLflow's tables in {path} take very long .* tracking prepare uri=sqlite"
    ) as no:
        create(sqlite.address(path), wait_s=0.5)
    assert "_migrate" not in str(no.value) and mlflow_store.CREATE_S > 600
    assert [p.name for p in path.parent.iterdir()] == ["mlflow.db.lock"] and not creators() - before
