"""Whole runs and studies through the command line, on toy models: results, resuming, refusals."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest


def toy(bert: Path, csv: Path) -> list[str]:
    """Overrides that make any run a matter of seconds."""
    return [
        "teacher=local", f"teacher.source=path:{bert}", "teacher.name=tiny", "teacher.floor_margin=-1",
        "teacher.recipe.epochs=2", "teacher.recipe.learning_rate=3e-3", "student=l2", "runtime.device=cpu",
        "task=local", "task.name=toy", f"task.folder={csv}", "task.label_names=[bad,good]", "task.columns=[text]",
        "recipe.epochs=2", "recipe.learning_rate=3e-3", "recipe.batch_size=16", "recipe.max_length=32",
        "teacher.recipe.max_length=32", "runtime.dtype=fp32", "tracking=off",
    ]  # fmt: skip


def results(root: Path, study: str) -> dict[str, dict]:
    found = [json.loads(p.read_text()) for p in (root / "multirun" / study).glob("*/result.json")]
    return {r["run"]["name"]: r for r in found}


@pytest.fixture
def overrides(tiny_bert_dir, tiny_csv_task):
    return toy(tiny_bert_dir, tiny_csv_task)


def test_a_run_and_the_same_command_again(kdexp, overrides, tmp_path):
    done = kdexp(["objective=att_kl", *overrides], cold=True)  # a Python from nothing, with another seed of its hashes
    assert done.returncode == 0, done.stderr
    assert "intermediate att_kl (student layer <- teacher layer)" in done.stdout
    (result,) = results(tmp_path, "adhoc").values()
    assert [s["name"] for s in result["stages"]] == ["teacher", "distill.intermediate", "distill.prediction"]
    assert result["mapping"]["att_kl"] == [[1, 2], [2, 4]] and result["init"]["layers"] == [1, 2]
    assert result["task"]["majority"]["validation"]["accuracy"] == 0.5
    folder = tmp_path / result["run"]["folder"]
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert (folder / ".hydra" / "config.yaml").is_file() and (folder / "run.log").is_file()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"teacher", "distill.intermediate", "distill.prediction"} <= {line["stage"] for line in lines}
    weights = Path(result["student"]["weights"])
    from transformers import AutoModelForSequenceClassification

    student = AutoModelForSequenceClassification.from_pretrained(weights)
    assert student.config.num_hidden_layers == 2 and student.config.id2label == {0: "bad", 1: "good"}

    before = (folder / "result.json").stat().st_mtime_ns
    again = kdexp(["objective=att_kl", *overrides], cold=True)
    assert again.returncode == 0 and (folder / "result.json").stat().st_mtime_ns == before


def test_efficiency_is_measured_when_asked_for(kdexp, overrides, tmp_path):
    done = kdexp(["runtime.efficiency=true", *overrides])
    assert done.returncode == 0, done.stderr
    (result,) = results(tmp_path, "adhoc").values()
    small, big = result["student"]["efficiency"], result["teacher"]["efficiency"]
    assert 0 < small["gflop_per_example"] < big["gflop_per_example"]
    assert 0 < small["cpu_batch1_median_ms"] <= small["cpu_batch1_p95_ms"] and small["cpu_batch32_median_ms"] > 0


def test_plan_show_and_a_second_run_share_the_teacher(kdexp, overrides, tmp_path):
    shown = kdexp(["plan=show", *overrides])
    assert shown.returncode == 0 and "2 of 2 stages would run" in shown.stdout
    assert not (tmp_path / "multirun").exists() or not list((tmp_path / "multirun").glob("adhoc*"))
    assert kdexp(overrides).returncode == 0
    assert "nothing to do" in kdexp(["plan=show", *overrides]).stdout
    assert "1 of 2 stages would run" in kdexp(["plan=show", "seed=2", *overrides]).stdout


def test_a_finished_run_whose_data_have_changed_is_refused(kdexp, overrides, tiny_csv_task):
    assert kdexp(overrides).returncode == 0
    path = tiny_csv_task / "train.csv"
    path.write_text(path.read_text() + "one more sentence,good,4.0\n")
    again = kdexp(overrides)
    assert again.returncode == 2 and "its data had another content then" in again.stderr, again.stdout + again.stderr


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["objective=att_lk"], "objective=att_lk: there is no att_lk in objective"),
        (["recipe.epohcs=3"], "there is no key recipe.epohcs. Did you mean recipe.epochs?"),
        (["student.num_layers=7"], "needs a teacher of at least 7 layers (it has 4)"),
        (["student.num_layers=7", "data.heldout=0"], "2 things must change"),
        (["+experiment=nothing"], "there is no nothing in experiment"),
        (["objective=kd,nothing", "-m"], "Could not find 'objective/nothing'"),
        (["data.root=/does/not/exist"], "data.root=/does/not/exist is no folder"),
        (["seed=one"], "seed"),
        (["teacher.sha256=" + "a" * 64], "they are not the expected ones; reinstall them"),
        (["recipe.max_length=200"], "recipe.max_length=200, but teacher=tiny can read 128 tokens"),
    ],
)
def test_refusals_are_sentences_and_leave_nothing(kdexp, overrides, tmp_path, wrong, expected):
    done = kdexp([*overrides, *wrong])
    assert done.returncode == 2, done.stdout + done.stderr
    assert expected in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "multirun").exists()


def test_the_launcher_named_as_one_of_hydras_own_is_taken_without_a_word(kdexp, overrides):
    done = kdexp(["hydra/launcher=basic", "plan=show", *overrides])
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_help_and_cfg(kdexp):
    done = kdexp(["--help"], cold=True)
    assert done.returncode == 0 and "att_kl" in done.stdout and "A whole study" in done.stdout
    assert kdexp(["--cfg", "job"], cold=True).returncode == 0


def test_a_teacher_that_cannot_teach_is_refused(kdexp, overrides, tmp_path):
    done = kdexp([*overrides, "teacher.floor_margin=0.6"])
    assert done.returncode == 1
    assert "Likely causes" in done.stderr and "Traceback" not in done.stderr
    (status,) = (tmp_path / "multirun" / "adhoc").glob("*/status.json")
    assert json.loads(status.read_text())["state"] == "failed"


GRID = ["-m", "objective=kd,hid_seq", "init=first,random", "hydra.launcher.slots=2", "runtime.checkpoint_s=0"]


def test_a_killed_study_continues_bit_for_bit(kdexp, begin, overrides, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    command = [*GRID, *overrides, "study=four"]
    done = kdexp(command, cwd=whole)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = results(whole, "four")
    assert len(expected) == 4

    process = begin(command, cwd=cut)
    deadline = time.time() + 120
    while time.time() < deadline:
        begun = list((cut / "multirun" / ".store" / "work").glob("*/checkpoint/state.json"))
        if results(cut, "four") and begun:
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {name: r["finished"] for name, r in results(cut, "four").items()}
    assert 1 <= len(before) < 4, "the kill came too late to prove anything"

    again = kdexp(command, cwd=cut)
    assert again.returncode == 0, again.stdout + again.stderr
    found = results(cut, "four")
    assert found.keys() == expected.keys()
    for name, result in expected.items():
        assert found[name]["scores"] == result["scores"] and found[name]["best"] == result["best"], name
        theirs, mine = (Path(r["student"]["weights"]) / "model.safetensors" for r in (result, found[name]))
        assert theirs.read_bytes() == mine.read_bytes(), name
    for name, when in before.items():
        assert found[name]["finished"] == when, f"{name} was finished and has been repeated"


def test_a_failed_point_does_not_stop_the_others(kdexp, overrides, tmp_path):
    margin = next(i for i, o in enumerate(overrides) if o.startswith("teacher.floor_margin"))
    swept = [*overrides[:margin], *overrides[margin + 1 :], "teacher.floor_margin=-1,0.9"]
    done = kdexp(["-m", "objective=kd", "study=some", *swept, "seed=1,2"])
    assert done.returncode == 1, done.stdout + done.stderr
    states = [json.loads(p.read_text())["state"] for p in (tmp_path / "multirun" / "some").glob("*/status.json")]
    assert sorted(states) == ["failed", "failed", "finished", "finished"]
    assert "teacher.floor_margin asks for 0.9 more" in " ".join((done.stdout + done.stderr).split())


def test_looking_runs_and_writes_nothing_whatever_a_check_raises(kdexp, overrides, tmp_path):
    """A damaged config.json of the teacher: Hydra would warn that a callback failed, and run."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    for look in ("dry=true", "plan=show"):
        done = kdexp([*overrides, f"teacher.source=path:{tmp_path / 'broken'}", look])
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
        assert "config.json" in done.stderr and not (tmp_path / "multirun").exists()
