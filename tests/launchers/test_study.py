"""Whole studies in real processes: exit codes, killed runs, several shells, dry runs. Runs only sleep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdexp.cli import commands

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_a_grid_runs_once_and_is_skipped_afterwards(shell: Any) -> None:
    code, out, err = shell.run("+experiment=grid")
    assert code == 0, err
    assert "left out: 2 points with objective=att, task=beta: att is not defined there" in err
    assert set(shell.states("grid").values()) == {"finished"}
    assert len(shell.executions()) == 6
    code, out, err = shell.run("+experiment=grid")
    assert code == 0
    assert len(shell.executions()) == 6
    assert "study grid: 6 runs" in out
    listed = json.loads((shell.where / "multirun/grid/study.json").read_text())
    assert set(listed) == {"study", "scale", "command", "points", "checksum"}
    assert set(listed["points"][0]) == {"id", "name", "labels", "seed", "overrides"}
    assert set(listed["points"][0]["labels"]) == {"teacher", "student", "objective", "mapping", "init", "task"}
    shell.run("+experiment=grid", "scale=desk", "hydra/launcher=basic")
    assert json.loads((shell.where / "multirun/grid/study.json").read_text())["scale"] == "desk"
    assert len(shell.executions()) == 8


@pytest.mark.parametrize("launcher", ["local", "basic"])
def test_a_failed_run_is_reported_and_stops_nothing(shell: Any, launcher: str) -> None:
    arguments = ("+experiment=plain", f"hydra/launcher={launcher}")
    code, out, _ = shell.run(*arguments, STUB_FAIL="last-s2")
    assert code == 1
    assert sorted(shell.states("plain").values()) == ["failed"] + ["finished"] * 5
    failed = next(name for name, state in shell.states("plain").items() if state == "failed")
    assert f"failed: {failed}: ValueError: this one was meant to fail" in out
    assert f"multirun/plain/{failed}/run.log" in out
    if launcher == "local":
        assert "meant to fail" in (shell.where / "multirun/plain" / failed / "run.log").read_text()
    code, out, _err = shell.run(*arguments)
    assert code == 0
    assert len(shell.executions()) == 7


def test_a_killed_run_is_marked_the_others_finish_and_the_next_command_completes_it(
    shell: Any, until: Callable
) -> None:
    process = shell.start("+experiment=plain", "hydra.launcher.slots=2", STUB_SECONDS="1.5")
    until(lambda: len(shell.executions()) > 0)
    name, pid, _ = shell.executions()[0]
    until(lambda: (shell.where / "multirun/plain" / name / "step.json").exists())
    os.kill(int(pid), signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    states = shell.states("plain")
    assert states.pop(name) == "failed"
    assert set(states.values()) == {"finished"}
    assert f"failed: {name}: killed by signal 9 (SIGKILL)" in out
    code, out, err = shell.run("+experiment=plain")
    assert code == 0, err
    assert set(shell.states("plain").values()) == {"finished"}
    assert shell.result("plain", name)["resumed_at"] >= 1
    assert len(shell.executions()) == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_saves_and_the_same_command_continues(shell: Any, until: Callable, number: int) -> None:
    process = shell.start("+experiment=plain", "hydra.launcher.slots=2", STUB_SECONDS="5")
    until(lambda: len(shell.executions()) == 2)
    time.sleep(0.8)
    if number == signal.SIGINT:  # as a terminal does it: to every process of the group
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "The same command continues" in err
    states = shell.states("plain")
    assert sorted(states.values()) == ["interrupted"] * 2 + ["new"] * 4
    for _, pid, _ in shell.executions():
        assert not Path(f"/proc/{pid}").exists()
    code, _out, err = shell.run("+experiment=plain")
    assert code == 0
    resumed = [shell.result("plain", name)["resumed_at"] for name, state in states.items() if state == "interrupted"]
    assert min(resumed) >= 1


def test_interrupting_the_basic_launcher(shell: Any, until: Callable) -> None:
    process = shell.start("+experiment=plain", "hydra/launcher=basic", STUB_SECONDS="3")
    until(lambda: len(shell.executions()) == 1)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert sorted(shell.states("plain").values()) == ["interrupted"] + ["new"] * 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_study_with_an_interrupted_run_does_not_end_well(shell: Any, until: Callable, number: int) -> None:
    """One worker is asked to end, by an operator or a guard against memory: it saves itself, the study goes on."""
    process = shell.start("+experiment=plain", "hydra.launcher.slots=2", STUB_SECONDS="3")
    until(lambda: len(shell.executions()) > 0)
    name, pid, _ = shell.executions()[0]
    until(lambda: (shell.where / "multirun/plain" / name / "step.json").exists())
    os.kill(int(pid), number)
    out, err = process.communicate(timeout=120)
    states = shell.states("plain")
    assert states[name] == "interrupted" and process.returncode == 1, err
    assert sorted(states.values()) == ["finished"] * 5 + ["interrupted"]
    assert "run the same command again" in out
    assert shell.run("+experiment=plain")[0] == 0


def test_children_do_not_outlive_a_killed_launcher(shell: Any, until: Callable) -> None:
    process = shell.start("+experiment=plain", "hydra.launcher.slots=2", STUB_SECONDS="20")
    until(lambda: len(shell.executions()) == 2)
    process.kill()
    process.communicate()
    pids = [pid for _, pid, _ in shell.executions()] + [shell.executions()[0][2]]
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 30)
    assert "running" not in shell.states("plain").values()


def test_several_shells_share_a_study_without_doing_anything_twice(shell: Any) -> None:
    ways = ["hydra.launcher.slots=2", "hydra.launcher.slots=1", "hydra/launcher=basic"]
    processes = [shell.start("+experiment=plain", way, STUB_SECONDS="0.6") for way in ways]
    for process in processes:
        _out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    names = [name for name, _, _ in shell.executions()]
    assert len(names) == len(set(names)) == 6
    assert set(shell.states("plain").values()) == {"finished"}


def test_a_run_that_somebody_stopped_leaves_a_study_that_is_not_done(shell: Any, until: Callable) -> None:
    """By hand, by a batch system, for want of memory: it is not finished, so the exit code is not 0."""
    command = ("+experiment=plain", "init=first", "seed=1,2", "hydra.launcher.slots=1")
    process = shell.start(*command, STUB_SECONDS="3")
    until(lambda: len(shell.executions()) == 1)
    os.kill(int(shell.executions()[0][1]), signal.SIGTERM)
    _out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert sorted(shell.states("plain").values()) == ["finished", "interrupted"]
    assert shell.run(*command)[0] == 0


@pytest.mark.slow
def test_twenty_workers_on_a_hundred_points(shell: Any) -> None:
    """Two shells with ten slots each, and one of them is killed on the way: every point is carried out once."""
    seeds = f"seed={','.join(map(str, range(101, 151)))}"
    command = ("+experiment=plain", "init=first,last", seeds, "hydra.launcher.slots=10")
    processes = [shell.start(*command, STUB_SECONDS="0.4") for _ in range(2)]
    time.sleep(15)
    os.killpg(processes[0].pid, signal.SIGKILL)
    processes[0].communicate()
    _out, err = processes[1].communicate(timeout=240)
    assert processes[1].returncode == 0, err
    code, out, err = shell.run(*command)
    assert code == 0 and "study plain: 100 runs" in out, err
    assert set(shell.states("plain").values()) == {"finished"} and len(shell.states("plain")) == 100
    repeated = [name for name, count in Counter(name for name, _, _ in shell.executions()).items() if count > 1]
    assert len(repeated) <= 10, "only what the killed shell was at is taken up again"


def test_a_run_that_another_shell_lets_go_of_is_taken_up(shell: Any, until: Callable) -> None:
    first = shell.start("+experiment=plain", "init=first", "seed=1", "hydra.launcher.slots=1", STUB_SECONDS="30")
    until(lambda: len(shell.executions()) == 1)
    second = shell.start("+experiment=plain", "init=first", STUB_SECONDS="0.3")
    until(lambda: len(shell.executions()) == 3)
    first.kill()
    first.communicate()
    _out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert "is being run by another process" in err
    assert set(shell.states("plain").values()) == {"finished"}


def test_runs_are_processes_of_one_thread_with_their_output_in_their_log(shell: Any) -> None:
    code, _, err = shell.run("+experiment=plain", "init=first", "hydra.launcher.slots=3", STUB_PRELOAD="1")
    assert code == 0, err
    pids = {pid for _, pid, _ in shell.executions()}
    parents = {parent for _, _, parent in shell.executions()}
    assert len(pids) == 3
    assert len(parents) == 1
    assert {shell.result("plain", name)["threads"] for name in shell.states("plain")} == {"1"}
    shell.run("+experiment=plain", "init=last", "hydra.launcher.threads=2")
    assert {shell.result("plain", name)["threads"] for name in shell.states("plain")} == {"2"}


def test_dry_prints_the_grid_and_writes_nothing(shell: Any) -> None:
    code, out, err = shell.run("+experiment=grid", "dry=true")
    assert code == 0, err
    assert "study grid: 6 runs (6 new)" in out
    assert "unknown until a run" in out
    assert not (shell.where / "multirun").exists()
    shell.run("+experiment=grid", "seed=1")
    code, out, err = shell.run("+experiment=grid", "dry=true")
    assert "study grid: 6 runs (3 finished, 3 new)" in out
    assert "about 6 s of one slot's time for 3 runs" in out
    assert len(shell.executions()) == 3


def test_all_problems_come_in_one_message_and_nothing_is_written(shell: Any) -> None:
    code, _out, err = shell.run("+experiment=plain", "student=small,tiny", "seed=1,13", "objective=kd,nothing")
    assert code == 2
    assert "init=last does not fit student=tiny: choose another init. (" in err
    assert "seed=13 brings bad luck" in err
    assert "objective/nothing" in err
    assert "3 things must change" in err
    assert "Traceback" not in err
    assert not (shell.where / "multirun").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "+experiment=grid,plain"], "sweeps over experiments"),
        (["+experiment=grid", "scale=desk,full"], "scale belongs to the whole study"),
        (["+experiment=grid", "scale=dsk"], "it knows full, desk"),
        (["+experiment=grid", "hydra.sweeper.exclude=[{where:{objectiv:kd},reason:x}]"], "objectiv is neither a group"),
        (["+experiment=grid", "hydra.sweeper.exclude=[{where:{objective:'*'},reason:x}]"], "the grid has no points"),
        (["+experiment=grid", "hydra.launcher.slots=0"], "at least 1"),
        (["+experiment=grid", "hydra.launcher._target_=os.system"], "one of kdexp's"),
    ],
)
def test_refusals(shell: Any, arguments: list[str], message: str) -> None:
    code, _, err = shell.run(*arguments)
    assert (code, message in err, "Traceback" in err) == (2, True, False), err
    assert not (shell.where / "multirun").exists()


def test_equal_points_are_merged(shell: Any) -> None:
    code, _out, err = shell.run("+experiment=plain", "seed=1", "runtime.device=cpu,auto")
    assert code == 0, err
    assert "merged: 2 points are the same run as another one" in err
    assert len(shell.executions()) == 2


def test_status_of_a_study(shell: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shell.run("+experiment=plain", STUB_FAIL="last-s2")
    monkeypatch.chdir(shell.where)
    monkeypatch.setenv("COLUMNS", "200")
    assert commands.main(["status", "plain"]) == 1
    out = capsys.readouterr().out
    assert "6 runs: 5 finished, 1 failed" in out
    assert "accuracy 50.0" in out
    assert "ValueError: this one was meant to fail" in out
    assert "continue: python -m kdexp +experiment=plain" in out
    monkeypatch.chdir("/")
    assert commands.main(["status", "plain", f"root={shell.where / 'multirun'}"]) == 1
    assert commands.main(["status", "plane", f"root={shell.where / 'multirun'}"]) == 2
    assert "there are: plain" in capsys.readouterr().err
    assert commands.main(["plain"]) == 2


def test_the_shipped_quickstart_can_be_looked_at(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "kdexp", "+experiment=quickstart", "dry=true"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "study quickstart: " in done.stdout
    assert "shared   teacher: 1, built once each unless in the store, used by" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_results_of_an_older_kdexp_are_named_and_not_taken_for_new_ones(shell: Any) -> None:
    old = shell.where / "multirun" / "plain" / "alpha-kd-first-s1-0123abcd" / "result.json"
    old.parent.mkdir(parents=True)
    rest = {"task": {}, "scores": {}, "student": {}, "cost": {}}
    old.write_text(json.dumps({"schema": 1, "run": {"id": "0123abcd", "study": "plain"}, **rest}))
    code, _, err = shell.run("+experiment=plain", "init=first", "seed=1")
    assert code == 0 and "1 finished runs in multirun/plain were made by an older kdexp" in err
    assert len(shell.executions()) == 1
