"""The launchers of clusters, with submitit's local executor and a Ray of this machine; both packages are optional."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.launchers import stub_spec

SUBMITIT = ("hydra/launcher=submitit", "hydra.launcher.executor=local", "hydra.launcher.slots=3")


def scores(shell: Any, name: str) -> dict[str, float]:
    return {run: shell.result(name, run)["best"]["scores"]["accuracy"] for run in shell.states(name)}


def test_submitit_carries_a_grid_out(shell: Any) -> None:
    pytest.importorskip("submitit")
    code, out, err = shell.run("+experiment=plain", *SUBMITIT, STUB_FAIL="last-s2")
    assert code == 1, err
    assert sorted(shell.states("plain").values()) == ["failed"] + ["finished"] * 5
    assert "ValueError: this one was meant to fail" in out
    code, out, err = shell.run("+experiment=plain", *SUBMITIT)
    assert code == 0, err
    assert len(shell.executions()) == 7
    mine = scores(shell, "plain")
    shell.run("+experiment=plain", "study=other")
    assert {run: shell.result("other", run)["best"]["scores"]["accuracy"] for run in shell.states("other")} == mine


def test_a_signal_puts_a_job_into_the_queue_again(shell: Any, until: Callable) -> None:
    pytest.importorskip("submitit")
    process = shell.start("+experiment=plain", "init=first", "seed=1", *SUBMITIT, STUB_SECONDS="4")
    until(lambda: len(shell.executions()) == 1)
    name, pid, _ = shell.executions()[0]
    until(lambda: (shell.where / "multirun/plain" / name / "step.json").exists())
    os.kill(int(pid), signal.SIGUSR2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len({pid for _, pid, _ in shell.executions()}) == 2
    assert shell.result("plain", name)["resumed_at"] >= 1


def test_interrupting_and_pruning_reach_jobs(shell: Any, until: Callable) -> None:
    pytest.importorskip("submitit")
    process = shell.start("+experiment=plain", "init=first", "seed=1,2", *SUBMITIT, STUB_SECONDS="30")
    until(lambda: len(shell.executions()) == 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert set(shell.states("plain").values()) == {"interrupted"}
    code, out, err = shell.run(
        "+experiment=search", "objective.temperature=4,9", "init=first", "hydra.sweeper.sampler=grid", "seed=3",
        "hydra.sweeper.pruner=median", "hydra.sweeper.pruner_options={n_startup_trials: 1}", *SUBMITIT[:2],
        "hydra.launcher.slots=1", STUB_SECONDS="5",
    )  # fmt: skip
    assert code == 0, err
    assert "(1 complete, 1 pruned)" in out


def test_a_job_that_leaves_nothing_is_a_failure_with_its_log(shell: Any, until: Callable) -> None:
    pytest.importorskip("submitit")
    process = shell.start("+experiment=plain", "init=first", "seed=1,2", *SUBMITIT, STUB_SECONDS="3")
    until(lambda: len(shell.executions()) == 2)
    os.kill(int(shell.executions()[0][1]), signal.SIGKILL)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 1, err
    assert sorted(shell.states("plain").values()) == ["failed", "finished"]
    assert "ended without a result" in out


@pytest.mark.slow
def test_ray_carries_a_grid_and_a_search_out(shell: Any, until: Callable) -> None:
    pytest.importorskip("ray")
    ray = ("hydra/launcher=ray", "hydra.launcher.slots=3")
    code, out, err = shell.run("+experiment=plain", *ray, STUB_FAIL="last-s2")
    assert code == 1, err
    assert sorted(shell.states("plain").values()) == ["failed"] + ["finished"] * 5
    assert "ValueError: this one was meant to fail" in out
    assert {shell.result("plain", run)["threads"] for run, s in shell.states("plain").items() if s == "finished"} == {
        "1"
    }
    code, out, err = shell.run(
        "+experiment=search", "objective.temperature=4,9", "init=first", "hydra.sweeper.sampler=grid",
        "hydra.sweeper.pruner=median", "hydra.sweeper.pruner_options={n_startup_trials: 1}", "hydra/launcher=ray",
        "hydra.launcher.slots=1", STUB_SECONDS="5",
    )  # fmt: skip
    assert code == 0, err
    assert "(1 complete, 1 pruned)" in out


@pytest.mark.slow
def test_a_killed_ray_worker_is_started_again(shell: Any, until: Callable) -> None:
    pytest.importorskip("ray")
    process = shell.start("+experiment=plain", "init=first", "seed=1", "hydra/launcher=ray", STUB_SECONDS="8")
    until(lambda: len(shell.executions()) == 1, 90)
    name, pid, worker = shell.executions()[0]
    until(lambda: (shell.where / "multirun/plain" / name / "step.json").exists())
    os.kill(int(worker), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert shell.result("plain", name)["resumed_at"] >= 1
    assert not Path(f"/proc/{pid}").exists()


def test_a_job_of_the_child_process_is_an_ordinary_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdexp.launch import child

    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here.parents[1]}{os.pathsep}{here}")
    config = {
        "teacher": {"name": "big"}, "student": {"name": "small", "num_layers": 3}, "init": {"name": "first"},
        "mapping": {"name": "auto"}, "objective": {"name": "kd", "temperature": 4}, "task": {"name": "alpha"},
        "recipe": {"epochs": 1}, "data": {}, "selection": "heldout", "seed": 1, "study": "s",
        "runtime": {"dtype": "fp32"},
    }  # fmt: skip
    order = child.Order.of([stub_spec.restore(config)], {"OMP_NUM_THREADS": "1"}, str(tmp_path))
    assert child.in_process(order) == 0
    assert json.loads((tmp_path / order.folders[0] / "result.json").read_text())["threads"] == "1"
