"""``sync``, ``ui`` and ``prepare`` from the command line: every kind of run folder, repeatable, honest, polite."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from kdexp.tracking import behind, prepare, problems, ui
from kdexp.tracking.files import MetricsFile
from kdexp.tracking.mlflow_store import public, resolve
from kdexp.tracking.sync import sync
from tests.test_runs import results, toy

STATES = {"done": "finished", "broke": "failed", "stopped": "interrupted", "killed": "running"}


@pytest.fixture
def folders(run_dir, config, finish):
    """Four runs that were never tracked: finished, failed, interrupted, killed (its last line is cut)."""
    config["tracking"]["enabled"] = False
    made = {}
    for name, state in STATES.items():
        made[name] = folder = run_dir.with_name(name)
        file = MetricsFile(folder / "metrics.jsonl")
        for step in range(10):
            file.append("s", step, 0, {"loss": step / 10})
        file.close()
        finish(folder, state, config, error="ValueError: no" if state == "failed" else None)
    with (made["killed"] / "metrics.jsonl").open("ab") as raw:
        raw.write(b'{"t": 1')
    run_dir.rmdir()
    return made


def test_every_kind_of_run_is_brought_up_to_date(folders, shown, tmp_path):
    said: list[str] = []
    assert sync(tmp_path / "multirun", say=said.append) == 0
    runs = shown.runs()
    assert set(runs) == set(STATES)
    expected = {"done": "FINISHED", "broke": "FAILED", "stopped": "KILLED", "killed": "KILLED"}
    assert {name: shown.status(run_id) for name, run_id in runs.items()} == expected
    assert shown.tags(runs["broke"])["kdexp.error"] == "ValueError: no"
    assert shown.params(runs["killed"])["student.num_layers"] == "3"
    assert {k: n for k, n in shown.points().items() if k[0] == "s/loss"} == {("s/loss", s): 4 for s in range(10)}
    assert said[-1] == "4 runs: 4 brought up to date, 0 up to date already, 0 still running, 0 behind"
    rows = shown.rows("select * from metrics order by 1, 2, 3, 4, 5, 6")
    assert sync(tmp_path / "multirun", say=said.append) == 0
    assert shown.rows("select * from metrics order by 1, 2, 3, 4, 5, 6") == rows
    assert said[-1] == "4 runs: 0 brought up to date, 4 up to date already, 0 still running, 0 behind"


def test_a_lost_store_is_built_again_from_the_files(folders, shown, tmp_path, kdexp):
    for _ in range(2):
        assert kdexp(["sync"], module="kdexp.tracking").returncode == 0
        counts = shown.points()
        assert {k: n for k, n in counts.items() if k[0] == "s/loss"} == {("s/loss", s): 4 for s in range(10)}
        for file in (tmp_path / "multirun").glob("mlflow.db*"):
            file.unlink()


def test_runs_that_are_fed_by_their_own_process_are_left_alone(folders, shown, tmp_path):
    said: list[str] = []
    with FileLock(folders["done"] / ".tracking.lock"):
        assert sync(tmp_path / "multirun", "toy", say=said.append) == 0
    assert "done" not in shown.runs()
    assert "1 still running" in said[-1]


def test_a_study_knows_which_runs_are_behind(folders, config, finish, shown, tmp_path):
    root = tmp_path / "multirun"
    assert behind(root, "toy") == [], "tracking was off: nobody asked for them"
    config["tracking"]["enabled"] = True
    finish(folders["done"], config=config)
    finish(folders["broke"], "failed", config)
    assert behind(root, "toy") == [folders["broke"], folders["done"]]
    assert sync(root, "toy") == 0
    assert behind(root) == []
    with (folders["done"] / "metrics.jsonl").open("a") as file:
        file.write("{}\n")
    assert behind(root) == [folders["done"]]


def test_one_bad_run_does_not_keep_the_others_back(folders, shown, tmp_path, monkeypatch):
    from kdexp.tracking.view import View

    real = View.attach

    def attach(view):
        if view.facts.name == "broke":
            raise RuntimeError("not this one")
        real(view)

    monkeypatch.setattr(View, "attach", attach)
    said: list[str] = []
    assert sync(tmp_path / "multirun", say=said.append) == 1
    assert set(shown.runs()) == set(STATES) - {"broke"}
    assert any("toy/broke: behind, RuntimeError: not this one" in line for line in said)
    assert json.loads((folders["broke"] / "tracking.json").read_text())["state"] == "behind"


def test_command_line(folders, shown, kdexp, tmp_path):
    done = kdexp(["sync", "study=toy"], module="kdexp.tracking")
    assert done.returncode == 0, done.stderr
    assert "4 brought up to date" in done.stdout
    assert done.stderr == ""
    assert len(shown.runs()) == 4


@pytest.mark.parametrize("words", [["-m", "study=two", "seed=1,2", "hydra.launcher.slots=2"], ["study=alone"]])
def test_the_program_shows_what_it_runs(words, kdexp, tiny_bert_dir, tiny_csv_task, shown, uri, tmp_path):
    """A grid, and a run that is alone: all in the store when the command returns, params and all.

    The second goes where MLFLOW_TRACKING_URI says.
    """
    overrides = [word for word in toy(tiny_bert_dir, tiny_csv_task) if word != "tracking=off"]
    env = {}
    if "-m" not in words:
        shown.path = str(tmp_path / "mine.db")
        shutil.move(uri.removeprefix("sqlite:///"), shown.path)
        env = {"MLFLOW_TRACKING_URI": f"sqlite:///{shown.path}"}
    settings = ["tracking.every_s=0.5", "tracking.timeout_s=60", "data.heldout=0.25"]
    done = kdexp([*words, *overrides, *settings], env=env)
    assert done.returncode == 0, done.stderr
    assert "tracking" not in done.stderr
    found = results(tmp_path, "two" if "-m" in words else "alone")
    runs = shown.runs()
    assert set(runs) == set(found)
    for name, run_id in runs.items():
        assert shown.status(run_id) == "FINISHED"
        params, finals, tags = shown.params(run_id), shown.finals(run_id), shown.tags(run_id)
        known = {**found[name]["labels"], "seed": str(found[name]["run"]["seed"])}
        assert known.items() <= params.items() and known.items() <= tags.items()
        assert params["data.heldout"] == "0.25" and "objective.prediction.kd.weight" in params
        assert not [key for key in params if "_target_" in key or key.partition(".")[0] in ("study", "runtime.device")]
        assert not [value for value in params.values() if value in ("null", "{}", "[]") or value[:2] in ("[0", "[1")]
        score = found[name]["scores"]["validation"]["accuracy"]
        assert finals["final/validation/accuracy"] == score and finals["score"] == 100 * score
        assert finals["system/process_memory_megabytes"] > 1
    assert (tmp_path / "multirun" / "mlflow.db").exists() == ("-m" in words)
    assert behind(tmp_path / "multirun") == []
    if env:
        told = kdexp(["study=alone", "incomplete=allow", "figure=no"], module="analysis.tables", env=env)
        assert told.returncode == 0 and "mine.db" in told.stdout, told.stdout + told.stderr


def test_artifacts_are_found_where_the_folder_went(folders, uri, tmp_path):
    """A copy is opened after the original is gone: by the analysis at once, by MLflow when kdexp has opened it."""
    from mlflow import MlflowClient

    from analysis.collect import collect
    from kdexp.tracking import moved

    path = folders["done"] / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "science": {"seed": 1}, "selection": "heldout"}))
    assert sync(tmp_path / "multirun", say=lambda line: None) == 0
    there = tmp_path / "a copy" / "multirun"
    shutil.copytree(tmp_path / "multirun", there)
    shutil.rmtree(tmp_path / "multirun")
    client = MlflowClient(f"sqlite:///{there}/mlflow.db")
    experiment = client.get_experiment_by_name("toy").experiment_id
    (run,) = client.search_runs([experiment], "tags.`kdexp.name` = 'done'")
    assert client.list_artifacts(run.info.run_id) == [], "as MLflow left it: the test would see a store that moved"
    assert len(collect("toy", there, incomplete="allow", cache=False).runs) == 1
    assert moved.follow(there / "mlflow.db") > 4 and moved.follow(there / "mlflow.db") == 0
    content = client.download_artifacts(run.info.run_id, "result.json", str(tmp_path))
    assert json.loads(Path(content).read_text())["run"]["name"] == "rte-kd-first-s1-cccccccc"
    kept = client.get_experiment(experiment).artifact_location
    assert kept == (there / "mlartifacts" / "toy").as_uri()


def test_the_reported_score_comes_first(folders, shown, tmp_path):
    """MLflow's comparison opens on the first metric that a run got."""
    assert sync(tmp_path / "multirun", say=lambda line: None) == 0
    keys = [key for (key,) in shown.rows(f"select key from latest_metrics where run_uuid = '{shown.runs()['done']}'")]
    assert keys[0] == "score" and "s/loss" in keys[1:]


def test_wrong_calls_are_one_sentence(kdexp, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        calls = {
            ("ui", f"port={port}"): f"port={port + 1}",
            ("ui", "port=x"): "port='x' is no number",
            ("ui", "uri=http://127.0.0.1:1"): "open that address in a browser",
            ("sync",): "there is no folder multirun",
            ("sync", "stduy=x"): "study=...",
            ("snyc",): "choose one of sync, ui, prepare",
        }
        for call, told in calls.items():
            done = kdexp(call, module="kdexp.tracking")
            assert done.returncode == 2, call
            assert told in done.stderr, (call, done.stderr)
            assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind by a wrong call"
    assert kdexp(["--help"], module="kdexp.tracking").returncode == 0


def test_ui_becomes_a_server_on_loopback_without_job_runners(uri, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(os, "execve", lambda *a: called.append(a))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ui(tmp_path / "multirun", port)
    program, command, environment = called[0]
    assert program == sys.executable
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--backend-store-uri") + 1] == uri
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_a_store_is_whole_or_absent(tmp_path, monkeypatch, caplog):
    """A process that dies while it creates the store leaves nothing that breaks the next one."""
    place = tmp_path / "x" / "mlflow.db"
    place.parent.mkdir()
    (place.parent / ".mlflow.db.new").write_bytes(b"half a store")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    prepare(f"sqlite:///{place}")
    assert not place.exists()
    assert "runs go on without it" in caplog.text
    monkeypatch.undo()
    prepare(f"sqlite:///{place}")
    assert sorted(p.name for p in place.parent.iterdir() if p.suffix != ".lock") == ["mlflow.db"]


def test_settings_are_checked_before_anything_runs():
    good = {"enabled": True, "uri": "sqlite:///multirun/mlflow.db", "every_s": 10, "timeout_s": 5}
    assert problems(good) == []
    assert problems({**good, "uri": "postgresql+psycopg2://host/db"}) == []
    assert problems({"enabled": False, "uri": None}) == []
    assert len(problems({**good, "uri": "./mlruns", "every_s": 0, "timeout_s": "soon"})) == 3


def test_uris(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("sqlite:///multirun/mlflow.db") == f"sqlite:///{tmp_path}/multirun/mlflow.db"
    assert resolve("http://host:1") == "http://host:1"
    assert public("http://me:secret@host:1/x") == "http://***@host:1/x"


@pytest.mark.parametrize("choice", ["default", "off", "server"])
def test_choices_compose(choice):
    from hydra import compose, initialize_config_dir

    folder = Path(__file__).resolve().parents[2] / "conf"
    with initialize_config_dir(str(folder / "tracking"), version_base=None):
        tracking = compose(choice)
    assert set(tracking) == {"enabled", "uri", "every_s", "timeout_s", "system_metrics", "artifacts"}
    assert tracking.enabled is (choice != "off")
    assert problems(dict(tracking)) == []
