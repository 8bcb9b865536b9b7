"""Every sampler and every pruner through a whole small search; what they need is asked for before anything runs."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import pytest

from kdexp.common.redact import bare_address, without_secrets
from kdexp.run import execute as runs
from kdexp.sweep.search import settings
from kdexp.sweep.search.settings import Settings

TRIALS = 4
NUMBERS = ("+experiment=search", "init=last", "hydra/launcher=basic")
GRID = "objective.temperature=2,4,9"


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def trials(shell: Any) -> list[Any]:
    storage = settings.journal(shell.where / "multirun/search/optuna.journal")
    return optuna.load_study(study_name="search", storage=storage).get_trials(deepcopy=False)


def needs(sampler: str) -> None:
    if sampler == "cmaes" and importlib.util.find_spec("cmaes") is None:
        pytest.skip("sampler=cmaes needs the package cmaes (pip install cmaes)")


def check(shell: Any, total: int, seeds: int = 1) -> Counter[str]:
    """Compare every trial with its runs on disk; returns how many trials there are in each state."""
    found, root = trials(shell), shell.where / "multirun/search"
    assert [trial.number for trial in found] == list(range(total))
    for trial in found:
        folders = [root / point["name"] for point in trial.user_attrs["points"]]
        assert len(folders) == seeds
        results = [runs.files.read_json(folder / "result.json") for folder in folders]
        if trial.state.name == "COMPLETE":
            assert trial.value == fmean(result["best"]["scores"]["accuracy"] for result in results)
        elif seeds == 1:
            assert trial.state.name == "PRUNED" and results == [None]
            status = json.loads((folders[0] / "status.json").read_text())
            assert (status["state"], status["pruned"]) == ("interrupted", True)
            assert f"gave up trial {trial.number} after evaluation {trial.last_step}" in status["error"]
        else:
            assert trial.state.name == "PRUNED" and None in results
    return Counter(trial.state.name for trial in found)


@pytest.mark.parametrize(
    ("sampler", "options", "mark"),
    [
        ("tpe", "{n_startup_trials: 2}", ""),
        ("gp", "{n_startup_trials: 2}", ""),
        ("cmaes", "{n_startup_trials: 1, popsize: 2}", "cma:"),
        ("nsga2", "{population_size: 2}", "NSGAII"),
    ],
)
def test_a_sampler_carries_a_search_through(shell: Any, sampler: str, options: str, mark: str) -> None:
    needs(sampler)
    ways = (f"hydra.sweeper.sampler={sampler}", f"hydra.sweeper.sampler_options={options}")
    code, _, err = shell.run(*NUMBERS, *ways, f"hydra.sweeper.n_trials={TRIALS}", STUB_SECONDS="0.01")
    assert code == 0, err
    assert check(shell, TRIALS) == {"COMPLETE": TRIALS}
    assert len({trial.params["objective.temperature"] for trial in trials(shell)}) >= 3  # nsga2 passes values on
    marks = [any(mark in key for key in trial.system_attrs) for trial in trials(shell)]
    assert any(marks), [trial.system_attrs for trial in trials(shell)]


@pytest.mark.parametrize(
    ("sampler", "pruner", "options", "seeds"),
    [
        ("random", "successive_halving", "{min_resource: 1, reduction_factor: 2}", 1),
        slow("random", "median", "{n_startup_trials: 1}", 1),
        slow("random", "hyperband", "{min_resource: 1, max_resource: 4, reduction_factor: 2}", 1),
        slow("grid", "wilcoxon", "{p_threshold: 0.2}", 5),
    ],
)
def test_a_pruner_carries_a_search_through(shell: Any, sampler: str, pruner: str, options: str, seeds: int) -> None:
    ways = [f"hydra.sweeper.sampler={sampler}", f"hydra.sweeper.pruner={pruner}"]
    ways += [f"hydra.sweeper.pruner_options={options}", f"hydra.sweeper.n_trials={TRIALS}"]
    if seeds > 1:
        ways += [f"hydra.sweeper.seeds={list(range(1, seeds + 1))}", "recipe.epochs=1", GRID]
    code, _, err = shell.run(*NUMBERS, *ways, STUB_SECONDS="0.05" if seeds > 1 else "0.8")
    assert code == 0, err
    states = check(shell, 3 if seeds > 1 else TRIALS, seeds)
    assert states["COMPLETE"] and states["PRUNED"], states


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_a_killed_search_goes_on(shell: Any, sampler: str, until: Callable) -> None:
    needs(sampler)
    options = "{n_startup_trials: 2}" if sampler == "gp" else "{n_startup_trials: 1, popsize: 2}"
    ways = (
        *NUMBERS[:2], "hydra.launcher.slots=2", f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.n_trials=7",
        f"hydra.sweeper.sampler_options={options}",
    )  # fmt: skip
    for goal in (3, 6):
        process = shell.start(*ways, STUB_SECONDS="1")
        until(lambda goal=goal: len({name for name, _, _ in shell.executions()}) >= goal)
        before = {trial.number: trial.params for trial in trials(shell)}
        process.kill()
        process.communicate()
    code, _, err = shell.run(*ways, STUB_SECONDS="0.2")
    assert code == 0, err
    assert check(shell, 7) == {"COMPLETE": 7}
    assert all(trials(shell)[number].params == params for number, params in before.items())
    assert len({name for name, _, _ in shell.executions()}) == 7


@pytest.mark.parametrize(
    ("asked", "gone", "message"),
    [
        ({"sampler": "cmaes"}, "cmaes", "needs the package cmaes: pip install cmaes"),
        ({"sampler": "gp"}, "torch", "needs the package torch"),
        ({"storage": "postgresql://me:secret@host/name"}, "psycopg", "pip install 'kdexp[postgresql]'"),
        ({"storage": "mysql+pymysql://me:secret@host/name"}, "pymysql", "pip install 'kdexp[mysql]'"),
        ({"storage": "mysql://me:secret@host/name"}, "MySQLdb", "needs the package mysqlclient"),
        ({"storage": "postgres://me:secret@host/name"}, "", "is no database's address"),
        ({"storage": "my.db"}, "", "is no database's address"),
    ],
)
def test_what_is_not_installed_is_named(
    asked: dict[str, str], gone: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == gone else found(name, *rest))
    monkeypatch.setitem(sys.modules, gone or "nothing", None)
    with pytest.raises(ValueError, match="hydra.sweeper") as caught:
        Settings(**asked)  # type: ignore[arg-type]
    assert message in str(caught.value) and "secret" not in str(caught.value)


def test_a_missing_driver_is_said_before_anything_is_written(shell: Any) -> None:
    (shell.where / "psycopg.py").write_text("raise ModuleNotFoundError('none', name='psycopg')")
    path = f"{shell.where}:{shell.env['PYTHONPATH']}"
    address = "hydra.sweeper.storage='postgresql://me:secret@nowhere/name'"
    code, _, err = shell.run("+experiment=search", address, PYTHONPATH=path)
    assert (code, "psycopg" in err, "secret" in err, "Traceback" in err) == (2, True, False, False), err
    assert not (shell.where / "multirun").exists()


def test_a_line_that_was_cut_short_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    study = optuna.create_study(study_name="one", storage=settings.journal(path))
    study.tell(study.ask(), 0.5)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"worker')
    study = optuna.load_study(study_name="one", storage=settings.journal(path))
    study.tell(study.ask(), 0.7)
    assert path.read_bytes().startswith(whole) and path.read_bytes().endswith(b"\n")
    found = optuna.load_study(study_name="one", storage=settings.journal(path))
    assert [trial.value for trial in found.trials] == [0.5, 0.7]


def test_passwords_are_not_written_down() -> None:
    line = "python -m kdexp a=b 'hydra.sweeper.storage=postgresql://me:secret@host:5432/name' c=d@e:f"
    assert without_secrets(line) == line.replace("me:secret", "***")
    assert bare_address("postgresql://me:secret@host:5432/name") == "postgresql://me@host:5432/name"
    assert without_secrets("x=mysql://h/d?password=secret&a=1") == "x=mysql://h/d?password=***&a=***"
    assert without_secrets("x=mysql://h/d?charset=utf8") == "x=mysql://h/d?charset=utf8"
    assert bare_address("mysql+pymysql://me@h/d?password=secret&charset=utf8") == "mysql+pymysql://me@h/d?charset=utf8"
    assert bare_address("sqlite:////tmp/a.db") == "sqlite:////tmp/a.db"


def test_no_pruner_needs_no_options() -> None:
    form = {"pruner": "none", "pruner_options": {"n_startup_trials": 6}}
    assert settings.read(form).pruner == "none"
    with pytest.raises(ValueError, match=r"hyperband refuses them.*pruner_options=null takes its own defaults"):
        settings.read({**form, "pruner": "hyperband"})
