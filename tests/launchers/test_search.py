"""Searches by Optuna, started as a person starts them: a real journal, real processes, really killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from kdexp.cli import commands
from kdexp.sweep.search import settings

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SEARCH = "+experiment=search"
TEMPERATURES = "objective.temperature=4,9"


def trials(shell: Any, name: str = "search") -> list[Any]:
    """All trials of a study, from its journal."""
    storage = settings.journal(shell.where / "multirun" / name / "optuna.journal")
    return optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)


def states(shell: Any) -> dict[str, int]:
    return dict(Counter(trial.state.name for trial in trials(shell)))


def names(shell: Any) -> list[str]:
    return [name for name, _, _ in shell.executions()]


def test_the_same_command_goes_on_to_the_total_and_repeats_nothing(shell: Any) -> None:
    code, out, err = shell.run(SEARCH, "hydra.sweeper.n_trials=4")
    assert code == 0, err
    assert "search search: 4 of 4 trials (4 complete)" in out
    code, out, err = shell.run(SEARCH, "hydra.sweeper.n_trials=6", "hydra.sweeper.figures=true")
    assert code == 0, err
    assert "best: trial " in out and "importance for score: objective.temperature" in out
    assert [t.number for t in trials(shell)] == list(range(6))
    assert len(names(shell)) == len(set(names(shell))) == 6
    code, out, err = shell.run(SEARCH, "hydra.sweeper.n_trials=6")
    assert (code, len(names(shell))) == (0, 6), err
    drawn = {path.name for path in (shell.where / "multirun/search/figures").iterdir()}
    assert drawn == {"history.png", "parallel.png", "importances.png"}
    listed = json.loads((shell.where / "multirun/search/study.json").read_text())
    assert sorted(point["trial"] for point in listed["points"]) == list(range(6))
    for trial in trials(shell):
        (point,) = trial.user_attrs["points"]
        assert trial.value == shell.result("search", point["name"])["best"]["scores"]["accuracy"]
        assert ("recipe.epochs" in trial.params) == (trial.params["init"] == "last")


def test_a_killed_sweeper_loses_and_doubles_nothing(shell: Any, until: Callable) -> None:
    arguments = (SEARCH, "hydra.launcher.slots=2", "hydra.sweeper.n_trials=5")
    for goal in (2, 4):
        process = shell.start(*arguments, STUB_SECONDS="3")
        until(lambda goal=goal: len(names(shell)) >= goal)
        process.kill()
        process.communicate()
    assert states(shell)["RUNNING"] == 2
    code, _out, err = shell.run(*arguments, STUB_SECONDS="0.3")
    assert code == 0, err
    assert [t.state.name for t in trials(shell)] == ["COMPLETE"] * 5
    assert len(set(names(shell))) == 5
    assert set(shell.states("search").values()) == {"finished"}


def test_a_killed_run_is_tried_again_from_where_it_was(shell: Any, until: Callable) -> None:
    process = shell.start(SEARCH, "hydra.launcher.slots=2", "hydra.sweeper.n_trials=3", STUB_SECONDS="1.5")
    until(lambda: len(names(shell)) > 0)
    name, pid, _ = shell.executions()[0]
    until(lambda: (shell.where / "multirun/search" / name / "step.json").exists())
    os.kill(int(pid), signal.SIGKILL)
    _out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"failed, tried again  {name}  killed by signal 9" in err
    assert states(shell) == {"COMPLETE": 3}
    assert shell.result("search", name)["resumed_at"] >= 1


def test_failed_trials_are_recorded_and_more_retries_take_them_up(shell: Any) -> None:
    arguments = (SEARCH, "hydra.sweeper.n_trials=3", "init=first,last", "hydra.sweeper.retries=1")
    code, out, err = shell.run(*arguments, STUB_FAIL="-kd-")
    assert code == 1
    assert states(shell) == {"FAIL": 3}
    assert len(names(shell)) == 6
    assert "failed: trial 0: ValueError: this one was meant to fail" in out
    code, out, err = shell.run(*arguments)
    assert (code, len(names(shell))) == (1, 6), err
    code, out, err = shell.run(*arguments[:-1], "hydra.sweeper.retries=2")
    assert code == 0, err
    assert "search search: 3 of 3 trials (3 complete)" in out
    assert states(shell) == {"FAIL": 3, "COMPLETE": 3}
    assert len(set(names(shell))) == 3


def test_several_shells_share_a_search(shell: Any, until: Callable) -> None:
    ways = ("hydra.launcher.slots=2", "hydra.launcher.slots=1", "hydra/launcher=basic")
    processes = [shell.start(SEARCH, way, "hydra.sweeper.n_trials=9", STUB_SECONDS="0.6") for way in ways]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert [t.state.name for t in trials(shell)] == ["COMPLETE"] * 9
    assert len(names(shell)) == len(set(names(shell))) == 9
    assert len({t.user_attrs["driver"] for t in trials(shell)}) >= 2


@pytest.mark.parametrize("launcher", ["local", pytest.param("basic", marks=pytest.mark.slow)])
def test_pruning_stops_a_run(shell: Any, launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (
        SEARCH, TEMPERATURES, "init=first", "hydra.sweeper.sampler=grid", "hydra.sweeper.pruner=median",
        "hydra.sweeper.pruner_options={n_startup_trials: 1}", f"hydra/launcher={launcher}",
        *(["hydra.launcher.slots=1"] if launcher == "local" else []),
    )  # fmt: skip
    code, out, err = shell.run(*arguments, STUB_SECONDS="4")
    assert code == 0, err
    assert "search search: 2 of 2 trials (1 complete, 1 pruned)" in out
    assert "median gave up trial 1 after evaluation" in err
    (point,) = trials(shell)[1].user_attrs["points"]
    folder = shell.where / "multirun/search" / point["name"]
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["pruned"]) == ("interrupted", True)
    assert json.loads((folder / "step.json").read_text()) < 10
    assert not (folder / "result.json").exists()
    assert len(trials(shell)[0].intermediate_values) == 10
    code, out, err = shell.run(*arguments)
    assert (code, len(names(shell))) == (0, 2), err
    monkeypatch.chdir(shell.where)
    assert commands.main(["status", "search"]) == 0
    listed = json.loads((shell.where / "multirun/search/study.json").read_text())
    assert [len(listed["points"]), len(listed["pruned"])] == [1, 1]
    code, out, err = shell.run(
        "+experiment=plain", "study=search", TEMPERATURES, "init=first", "seed=1", "selection=heldout"
    )
    assert code == 0, err  # an ordinary grid over the same points continues the pruned one
    assert shell.result("search", point["name"])["resumed_at"] >= 1
    assert len(names(shell)) == 3


def test_the_same_point_again_costs_nothing(shell: Any) -> None:
    code, _, err = shell.run(SEARCH, TEMPERATURES, "init=first", "hydra.sweeper.n_trials=6", STUB_SECONDS="0.3")
    assert code == 0, err
    assert states(shell) == {"COMPLETE": 6}
    assert len(names(shell)) == 2
    assert len({t.value for t in trials(shell)}) == 2


def test_several_metrics_have_a_front(shell: Any) -> None:
    aims = ("hydra.sweeper.metric=[score,student.parameters]", "hydra.sweeper.direction=[maximize,minimize]")
    grid = (
        TEMPERATURES,
        "student=small,tiny",
        "init=first",
        "hydra.sweeper.sampler=grid",
        "hydra.sweeper.figures=true",
    )
    code, out, err = shell.run(SEARCH, *grid, *aims)
    assert code == 0, err
    assert "Pareto front: 2 trials" in out
    assert states(shell) == {"COMPLETE": 4}
    assert (shell.where / "multirun/search/figures/pareto.png").exists()


def test_wilcoxon_stops_a_trial_between_its_seeds(shell: Any) -> None:
    code, _out, err = shell.run(
        SEARCH, TEMPERATURES, "init=first", "hydra.sweeper.sampler=grid", "hydra.sweeper.seeds=[1,2,3,4,5,6]",
        "hydra.sweeper.pruner=wilcoxon", "hydra.launcher.slots=1", STUB_SECONDS="0.1",
    )  # fmt: skip
    assert code == 0, err
    good, bad = trials(shell)
    assert (good.state.name, bad.state.name) == ("COMPLETE", "PRUNED")
    assert good.value == pytest.approx(0.8335)
    assert 6 < len(names(shell)) < 12
    assert "of 6 seeds" in err


def test_impossible_trials_are_left_out(shell: Any) -> None:
    code, _out, err = shell.run(
        SEARCH, "student=small,tiny", "objective.temperature=4", "recipe.epochs=2", "hydra.sweeper.sampler=grid"
    )
    assert code == 0, err
    assert "is left out: init=last does not fit student=tiny" in err
    assert states(shell) == {"COMPLETE": 3, "PRUNED": 1}


def test_another_search_is_not_mixed_in(shell: Any) -> None:
    assert shell.run(SEARCH, "hydra.sweeper.n_trials=2")[0] == 0
    for argument, message in (
        ("init=first,random", "hydra.sweeper.space.init differs from that of earlier trials"),
        ("student=tiny", "student.num_layers was 3 and is 1"),
        ("hydra.sweeper.metric=cost.seconds", "was started with ['score']"),
        ("hydra.sweeper.direction=minimize", "was started with ['maximize']"),
    ):
        code, _, err = shell.run(SEARCH, argument)
        assert (code, message in err, "study=NAME" in err, "Traceback" in err) == (2, True, True, False), err
    assert len(names(shell)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init=first,lst"], "init/lst"),
        (["hydra.sweeper.space.objectiv={choices:[1]}"], "objectiv"),
        (["hydra.sweeper.space.student={choices:[small],when:{objectiv:kd}}"], "names neither a group nor a key"),
        (["selection=last"], "selection=last has none"),
        (["hydra.sweeper.metric=scores.validation.accuracy"], "would fit the reported scores"),
        (["hydra.sweeper.params={init:first}"], "hydra/sweeper=grid; here it is space"),
        (["hydra/launcher=ray"], "pip install"),
        (["hydra/launcher=submitit"], "pip install"),
    ],
)
def test_refusals(shell: Any, arguments: list[str], message: str) -> None:
    missing = arguments[0].rpartition("=")[2]
    if missing in ("ray", "submitit") and __import__("importlib.util").util.find_spec(missing):
        pytest.skip(f"{missing} is installed")
    prefix = ["++" + a if a.startswith("hydra.sweeper.params") else a for a in arguments]
    prefix = ["+" + a if a.startswith("hydra.sweeper.space.") else a for a in prefix]
    code, _, err = shell.run(SEARCH, *prefix)
    assert (code, message in err, "Traceback" in err) == (2, True, False), err
    assert not (shell.where / "multirun").exists()


def test_dry_prints_the_search_and_writes_nothing(shell: Any) -> None:
    code, out, err = shell.run(SEARCH, "dry=true")
    assert code == 0, err
    assert "search search: 6 trials in all" in out and "recipe.epochs: 1 .. 5   when init=last" in out
    assert not (shell.where / "multirun").exists()


WORKER = """
import sys
from pathlib import Path
from kdexp.sweep.search.optimise import Search
from kdexp.sweep.search.settings import Settings
from kdexp.sweep.search.space import Dimension
space = [Dimension("x", "x", "float", 0.0, 1.0), Dimension("y", "y", "categorical", choices=("a", "b"))]
search = Search(Path(sys.argv[1]), Settings(n_trials=24, storage=sys.argv[2] or None, sampler="tpe"), space, {}.get)
done = 0
while (taken := search.take()) is not None:
    trial, values = taken
    for step in range(3):
        trial.report(values["x"], step)
    search.tell(trial, [values["x"]])
    done += 1
search.close()
print(done)
"""


@pytest.mark.parametrize("kind", ["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_eight_processes_on_one_storage(tmp_path: Path, kind: str) -> None:
    url = "" if kind == "journal" else f"sqlite:///{tmp_path}/optuna.db"
    folder = tmp_path / "many"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WORKER, str(folder), url]
    workers = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(8)
    ]
    done = 0
    for worker in workers:
        out, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err
        done += int(out)
    storage = settings.journal(folder / "optuna.journal") if kind == "journal" else url
    found = optuna.load_study(study_name="many", storage=storage).trials
    assert done == len(found) == 24
    assert {t.state.name for t in found} == {"COMPLETE"}
    assert len({t.params["x"] for t in found}) == 24
