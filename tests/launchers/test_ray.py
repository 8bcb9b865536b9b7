"""What a study on a Ray cluster does when something dies, or is not where it should be; the package is optional."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import program_environment
from tests.test_runs import results, toy

GRID = ("+experiment=plain", "init=first", "hydra/launcher=ray", "hydra.launcher.slots=2")
"""Three runs, two at once."""


class Cluster:
    """A Ray of this machine that a test starts and ends; it listens on the loopback device, with a token of its own."""

    def __init__(self, shell: Any, until: Callable):
        self.shell, self.until, self.folders = shell, until, list[str]()
        self.heads: list[subprocess.Popen[bytes]] = []
        shell.env |= {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }  # fmt: skip

    def start(self, **env: str) -> str:
        """Start a head node whose runs see ``env``; returns the override that names it."""
        self.folders.append(tempfile.mkdtemp(prefix="ray-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
            "--node-ip-address=127.0.0.1", "--include-dashboard=false", f"--temp-dir={self.folders[-1]}",
        ]  # fmt: skip
        log = Path(self.folders[-1]) / "start.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                command, env={**self.shell.env, **env}, stdout=out, stderr=out, start_new_session=True
            )
        self.heads.append(process)
        self.until(lambda: "Ray runtime started" in log.read_text(), 90)
        return f"hydra.launcher.address=127.0.0.1:{port}"

    def kill(self, what: str = "") -> None:
        """Kill those of its processes whose command line has ``what``."""
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = entry.read_text()
                if what in line and any(folder in line for folder in self.folders):
                    os.kill(int(entry.parent.name), signal.SIGKILL)


@pytest.fixture
def cluster(shell: Any, until: Callable) -> Iterator[Cluster]:
    pytest.importorskip("ray")
    made = Cluster(shell, until)
    yield made
    made.kill()
    for process in made.heads:
        process.wait()
    for folder in made.folders:
        shutil.rmtree(folder, ignore_errors=True)


def gone(pids: list[str]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def in_the_third_run(shell: Any, until: Callable) -> str:
    """Wait until one run is finished and the last has taken a step; returns the last one's name."""
    until(lambda: len(shell.executions()) == 3, 120)
    name = shell.executions()[2][0]
    until(lambda: (shell.where / "multirun/plain" / name / "step.json").exists())
    return name


def continues(shell: Any, third: str, *where: str, **env: str) -> None:
    """The same command finishes the study and repeats nothing that was finished."""
    finished = {name for name, state in shell.states("plain").items() if state == "finished"}
    assert finished and third not in finished
    code, _, err = shell.run(*GRID, *where, **env)
    assert code == 0, err
    assert set(shell.states("plain").values()) == {"finished"}
    names = [name for name, *_ in shell.executions()]
    assert {names.count(name) for name in finished} == {1}
    assert shell.result("plain", third)["resumed_at"] >= 1


@pytest.mark.slow
def test_a_study_says_that_its_ray_cluster_is_gone(shell: Any, until: Callable, cluster: Cluster) -> None:
    process = shell.start(*GRID, cluster.start(STUB_SECONDS="8"))
    third = in_the_third_run(shell, until)
    cluster.kill("gcs_server")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "the Ray cluster at 127.0.0.1:" in err and "is gone" in err and "the same command continues" in err
    assert "Traceback" not in err and " failed " not in err
    until(lambda: gone([pid for _, pid, _ in shell.executions()]), 30)
    continues(shell, third, cluster.start(STUB_SECONDS="2"))


@pytest.mark.slow
@pytest.mark.parametrize("standing", [True, False], ids=["standing cluster", "cluster of its own"])
def test_runs_end_with_their_killed_driver(shell: Any, until: Callable, cluster: Cluster, standing: bool) -> None:
    where = (cluster.start(STUB_SECONDS="16"),) if standing else ()
    process = shell.start(*GRID, *where, STUB_SECONDS="16")
    third = in_the_third_run(shell, until)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    until(lambda: gone([pid for _, pid, _ in shell.executions()]), 40)
    continues(shell, third, *where, STUB_SECONDS="2")


@pytest.mark.slow
def test_ray_workers_in_another_folder_hand_results_over_by_storage(
    kdexp: Callable, tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path, until: Callable
) -> None:
    pytest.importorskip("ray")
    here, there, yonder = (tmp_path / name for name in ("here", "there", "yonder"))
    for folder in (here, there, yonder):
        folder.mkdir()
    study = [
        "-m", "study=far", *toy(tiny_bert_dir, tiny_csv_task), "hydra/launcher=ray", "hydra.launcher.slots=2",
        f"runtime.remote=file://{tmp_path / 'common'}",
    ]  # fmt: skip
    done = kdexp([*study, "seed=1,2", f"hydra.launcher.workdir={there}"], cwd=here)
    assert done.returncode == 0, done.stderr
    assert len(results(here, "far")) == 2 and results(here, "far") == results(there, "far")
    assert not list((here / "multirun" / ".store").glob("*/meta.json")), "nothing was carried out here"

    slow = [*study, "seed=3", "recipe.epochs=200", "runtime.checkpoint_s=0.2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "kdexp", *slow, f"hydra.launcher.workdir={there}"], cwd=here, text=True,
        env=program_environment({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    until(lambda: bool(list(tmp_path.glob("common/work/*/*/manifest.json"))), 120)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    (name,) = {p.parent.name for p in there.glob("multirun/far/*/status.json")} - set(results(there, "far"))
    states = [json.loads((at / "multirun/far" / name / "status.json").read_text())["state"] for at in (here, there)]
    assert states == ["interrupted"] * 2 and time.monotonic() - asked < 40
    assert not list(tmp_path.glob(f"common/runs/far/{name}/.stop")), "the same command may run"
    done = kdexp([*slow, f"hydra.launcher.workdir={yonder}"], cwd=here)
    assert done.returncode == 0 and len(results(here, "far")) == 3, done.stderr
    assert "continues from a checkpoint at" in (yonder / "multirun/far" / name / "run.log").read_text()


@pytest.mark.slow
def test_a_ray_worker_without_the_folder_says_so_itself(shell: Any) -> None:
    pytest.importorskip("ray")
    code, out, err = shell.run(*GRID, "seed=1", "hydra.launcher.workdir=/nowhere")
    assert code == 1, err
    assert "/nowhere is no directory on " in out and "Ray task" not in out + err and "Traceback" not in out + err


@pytest.mark.slow
def test_storage_that_is_away_when_a_ray_run_ends_is_the_run_s_reason(
    kdexp: Callable, tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path
) -> None:
    """Every look at a run's records fails in the process that launches, for one of two runs."""
    pytest.importorskip("ray")
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (here / "sitecustomize.py").write_text(
        "from kdexp.store.shared_run import SharedRun\nfetch = SharedRun.pull\n"
        "def pull(self):\n"
        f"    import os\n    if '-s2-' in self.run_dir.name and os.getcwd() == {str(here)!r}:\n"
        "        raise OSError('the storage is away')\n    return fetch(self)\n"
        "SharedRun.pull = pull\n"
    )
    study = [
        "-m", "study=far", *toy(tiny_bert_dir, tiny_csv_task), "hydra/launcher=ray", "hydra.launcher.slots=1",
        f"runtime.remote=file://{tmp_path / 'common'}", f"hydra.launcher.workdir={there}", "seed=1,2,3",
    ]  # fmt: skip
    path = program_environment({})["PYTHONPATH"]
    done = kdexp(study, cwd=here, env={"PYTHONPATH": f"{here}{os.pathsep}{path}"})
    assert done.returncode == 1 and "could not be fetched (the storage is away)" in done.stdout, done.stderr
    assert sorted(r["run"]["seed"] for r in results(here, "far").values()) == [1, 3]
    before = {path: path.stat().st_mtime_ns for path in there.glob("multirun/far/*/result.json")}
    done = kdexp(study, cwd=here)
    assert done.returncode == 0, done.stderr
    assert len(before) == 3 and results(here, "far") == results(there, "far")
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing was repeated"
