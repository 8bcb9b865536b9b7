"""A run that tracks itself: what stands in the store afterwards, and what happens when it is resumed or off."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdexp.tracking import Tracker, behind, following
from kdexp.tracking.sync import sync

REPOSITORY = Path(__file__).resolve().parents[2]


def marker(run_dir):
    return json.loads((run_dir / "tracking.json").read_text())


def test_a_finished_run_is_all_there(run_dir, config, train, end, shown, tmp_path):
    end(train(run_dir, config), "finished")
    run_id = shown.runs()["rte-kd-first-s1-cccccccc"]
    tags, params, finals = shown.tags(run_id), shown.params(run_id), shown.finals(run_id)
    assert shown.status(run_id) == "FINISHED"
    assert tags["mlflow.parentRunId"] == shown.runs("study")["toy"]
    assert tags["mlflow.runName"] == "rte-kd-first-s1-cccccccc"
    expected = {
        "study": "toy",
        "hash": "c" * 8,
        "run_id": "c" * 64,
        "teacher": "big",
        "student": "l3",
        "objective": "kd",
    }
    expected |= {"mapping": "uniform", "init": "first", "task": "rte", "seed": "1", "status": "finished"}
    assert {key: tags[f"kdexp.{key}"] for key in expected} == expected
    assert params["recipe.learning_rate"] == "5e-05"
    assert finals["final/validation/accuracy"] == 0.75
    assert finals["final/majority/accuracy"] == 0.5
    assert finals["final/teacher/validation/accuracy"] == 0.9
    assert finals["cost/train_seconds"] == 2.5
    assert finals["stage/distill.prediction/seconds"] == 2.5
    points = shown.points()
    assert {step for name, step in points if name == "distill.prediction/train/loss"} == set(range(1, 21))
    assert set(points.values()) == {1}
    assert shown.rows("select name, digest from datasets") == [("rte", "d" * 36)]
    artifacts = tmp_path / "multirun" / "mlartifacts" / "toy" / run_id / "artifacts"
    kept = {str(p.relative_to(artifacts)) for p in artifacts.rglob("*") if p.is_file()}
    assert kept == {"result.json", "config.yaml", "run.log", "predictions/validation.safetensors"}
    note = marker(run_dir)
    assert note["state"] == "synced"
    assert note["position"] == (run_dir / "metrics.jsonl").stat().st_size
    assert (note["experiment"], note["run_id"]) == ("toy", run_id)
    assert not (tmp_path / "mlruns").exists()


def test_numbers_appear_while_the_run_goes_on(run_dir, config, train, end, shown):
    tracker = train(run_dir, config)
    deadline = time.monotonic() + 30
    while len(shown.points()) < 40 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(shown.points()) == 40
    (run_id,) = shown.runs().values()
    assert shown.status(run_id) == "RUNNING"
    end(tracker, "interrupted")
    assert shown.status(run_id) == "KILLED"


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(run_dir, config, train, end, shown):
    end(train(run_dir, config, range(1, 16)), "interrupted")
    before = shown.runs()
    (run_id,) = before.values()
    assert shown.status(run_id) == "KILLED"
    (run_dir / "tracking.json").unlink()  # a note for people: nothing depends on it
    tracker = train(run_dir, config, range(11, 21))  # repeats the steps since its checkpoint
    end(tracker, "finished", attempt=2)
    assert shown.runs() == before
    assert shown.status(run_id) == "FINISHED"
    losses = {k: n for k, n in shown.points().items() if k[0] == "distill.prediction/train/loss"}
    assert losses == {("distill.prediction/train/loss", step): 1 for step in range(1, 21)}
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 25, "the file keeps what really happened"


def test_a_run_started_afresh_does_not_mix_with_its_deleted_predecessor(run_dir, config, train, end, shown):
    end(train(run_dir, config), "failed")
    old = shown.runs()
    (run_dir / "metrics.jsonl").unlink()
    end(train(run_dir, config, range(1, 31)), "finished")
    assert shown.runs("superseded") == old
    (run_id,) = shown.runs().values()
    assert run_id not in old.values()
    query = f"select count(*) from metrics where run_uuid = '{run_id}' and key = 'distill.prediction/train/loss'"
    assert shown.rows(query) == [(30,)]


def test_odd_values_and_names_arrive(run_dir, config, train, end, shown):
    run_dir = run_dir.with_name("it's a name")
    tracker = train(run_dir, config, ())
    tracker.log("s", 1, 0, {"nan": float("nan"), "inf": float("inf"), "bad[name]?": 1})
    tracker.log("s", 2, 0, {f"m{i}": i for i in range(2000)})  # more than a batch takes
    end(tracker, "failed")
    assert len(shown.points()) == 2003
    assert shown.points()["s/bad_name__", 1] == 1
    end(train(run_dir, config, ()), "failed")
    assert set(shown.points().values()) == {1}
    assert len(shown.runs()) == 1


def test_machine_load_is_in_the_file_and_counts_on(run_dir, config):
    config["tracking"] = {"enabled": False, "system_metrics": True}
    for _ in range(2):
        Tracker(run_dir, config["tracking"]).close()
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [(r["stage"], r["step"]) for r in records] == [("system", 1), ("system", 2)]
    assert records[0]["values"]["process_memory_megabytes"] > 1


def test_switched_off_imports_no_mlflow(run_dir, config):
    config["tracking"] = {"enabled": False}
    code = (
        "import sys, json, pathlib; from kdexp.tracking import Tracker, prepare\n"
        f"t = Tracker(pathlib.Path({str(run_dir)!r}), json.loads({json.dumps(config['tracking'])!r}))\n"
        "t.log('s', 1, 0, {'x': 1}); t.close()\n"
        "assert not {'mlflow', 'sqlalchemy', 'torch', 'filelock', 'yaml'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert not (run_dir / "tracking.json").exists()
    assert '"x": 1.0' in (run_dir / "metrics.jsonl").read_text()


def test_a_tracked_run_imports_no_mlflow_either(run_dir, config, finish, shown):
    """All that MLflow costs (seconds, memory, threads) is paid by another process."""
    finish(run_dir, "running", config, pid=os.getpid())
    code = (
        "import sys, json, pathlib, threading; from kdexp.tracking import Tracker\n"
        f"t = Tracker(pathlib.Path({str(run_dir)!r}), json.loads({json.dumps(config['tracking'])!r}))\n"
        "t.log('s', 1, 0, {'x': 1}); t.close()\n"
        "assert not {'mlflow', 'sqlalchemy', 'torch'} & set(sys.modules) and threading.active_count() == 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert shown.points()["s/x", 1] == 1


def test_a_run_of_a_study_leaves_it_to_the_study(run_dir, config, train, end, shown):
    with following(run_dir.parent, config["tracking"] | {"enabled": True}):
        trackers = [train(run_dir.with_name(name), config) for name in "ab"]
        give_up = time.monotonic() + 60
        while len(shown.runs()) < 2 and time.monotonic() < give_up:
            time.sleep(0.1)
        assert set(shown.runs()) == {"a", "b"}, "shown while they run"
        for tracker in trackers:
            end(tracker, "finished")
            assert tracker.follower is None
    assert {shown.status(run_id) for run_id in shown.runs().values()} == {"FINISHED"}
    assert not behind(run_dir.parents[1])
    tracker = train(run_dir.with_name("c"), config)
    assert tracker.follower is not None, "the study is over"
    end(tracker, "finished")


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/x", "", None])
def test_a_store_that_mlflow_refuses_is_one_warning(run_dir, config, train, caplog, uri):
    config["tracking"]["uri"] = uri
    with caplog.at_level(logging.WARNING, "kdexp.tracking"):
        train(run_dir, config).close()
    assert len(caplog.records) == 1
    assert "tracking=off" in caplog.text
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 20


def test_a_damaged_store_is_one_warning(run_dir, config, train, end, caplog, tmp_path):
    (tmp_path / "multirun" / "mlflow.db").write_bytes(b"this is no database, however long it may be\n" * 100)
    with caplog.at_level(logging.WARNING, "kdexp.tracking"):
        end(train(run_dir, config), "finished")
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "kdexp.tracking sync" in caplog.text
    assert marker(run_dir)["state"] == "behind"
    assert sync(tmp_path / "multirun", say=print) == 1


def test_an_experiment_in_the_trash_is_named_with_the_remedy(run_dir, config, train, end, uri, caplog):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment("toy"))
    with caplog.at_level(logging.WARNING, "kdexp.tracking"):
        end(train(run_dir, config), "finished")
    assert "mlflow experiments restore" in caplog.text
    assert marker(run_dir)["state"] == "behind"
