"""Runs on several devices through the command line, on two processes of this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from kdexp.common import machine
from kdexp.launch.local import Local
from kdexp.launch.slots import slots
from tests.conftest import program_environment
from tests.test_runs import results, toy

pytestmark = pytest.mark.skipif(machine.cores() < 2, reason="two processes need two processors")


@pytest.fixture
def overrides(tiny_bert_dir, tiny_csv_task):
    longer = ["recipe.epochs=25", "recipe.dropout=0", "selection=last", "runtime.log_every=10"]
    return ["objective=hid_seq", "objective.schedule=joint", *toy(tiny_bert_dir, tiny_csv_task), *longer]


def losses(root: Path) -> dict[int, float]:
    (path,) = root.glob("multirun/adhoc/*/metrics.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["step"]: line["values"]["train/loss"] for line in lines if line["stage"] != "teacher"}


def begun(root: Path, overrides: list[str]) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """Start a run and wait until its student trains; returns it and the processes that it has started."""
    command = [sys.executable, "-m", "kdexp", *overrides]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    run = subprocess.Popen(command, cwd=root, env=program_environment({}), **pipes)
    until = time.monotonic() + 180
    while time.monotonic() < until and run.poll() is None:
        if list(root.glob("multirun/adhoc/*/metrics.jsonl")) and losses(root):
            return run, psutil.Process(run.pid).children()
        time.sleep(0.02)
    run.kill()
    pytest.fail(f"it did not begin: {run.communicate()[0]}")


def test_killed_on_two_devices_and_continued_on_one(kdexp, overrides, tmp_path):
    alone, two = tmp_path / "alone", tmp_path / "two"
    alone.mkdir(), two.mkdir()
    assert kdexp(overrides, cwd=alone).returncode == 0
    (plain,) = results(alone, "adhoc").values()
    key = plain["teacher"]["key"]  # its dropout is drawn by slices, so only the student is compared
    shutil.copytree(alone / "multirun" / ".store" / key, two / "multirun" / ".store" / key)

    run, others = begun(two, [*overrides, "runtime.devices=2", "runtime.checkpoint_s=0"])
    assert len(others) == 1
    run.kill()
    run.communicate()
    assert psutil.wait_procs(others, timeout=20)[1] == [], "the other process outlived its run"
    assert 0 < max(losses(two)) < 100
    done = kdexp(overrides, cwd=two)
    assert done.returncode == 0, done.stderr
    (continued,) = results(two, "adhoc").values()
    assert continued["run"]["id"] == plain["run"]["id"]
    assert [stage["key"] for stage in continued["stages"]] == [stage["key"] for stage in plain["stages"]]
    assert losses(two) == pytest.approx(losses(alone), rel=1e-3)


def test_one_process_ends_and_the_run_says_so(overrides, tmp_path):
    run, (other,) = begun(tmp_path, [*overrides, "recipe.epochs=2000", "runtime.devices=2"])
    other.kill()
    said = run.communicate(timeout=60)[0]
    assert run.returncode == 1 and "Traceback" not in said
    assert "failed: process 1 of this run's 2 (counted from 0) ended: it was killed by SIGKILL." in said
    (status,) = tmp_path.glob("multirun/adhoc/*/status.json")
    assert json.loads(status.read_text())["state"] == "failed"


def test_a_process_whose_run_is_gone_before_it_has_begun_ends(tmp_path):
    other = {"KDEXP_MEETING": str(tmp_path), "KDEXP_PARENT": "1", "RANK": "1", "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "kdexp.run.crew"]
    assert subprocess.run(command, env=program_environment(other), timeout=120, check=False).returncode == 1


@pytest.mark.slow
def test_torchrun_around_the_same_command(overrides, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "kdexp"]
    words = [*overrides, "recipe.epochs=2"]
    environment = {"cwd": tmp_path, "env": program_environment({}), "capture_output": True, "text": True}
    for _ in range(2):  # the second time there is nothing to do, for all of them
        done = subprocess.run([*launcher, *words], **environment, timeout=240)
        assert done.returncode == 0, done.stderr
    (result,) = results(tmp_path, "adhoc").values()
    assert result["runtime"]["devices"] == 2 and result["status"] == "finished"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runtime.devices=3"], "does not divide recipe.batch_size=16: with 3 devices it must be a multiple of 3"),
        (["runtime.devices=2", "recipe.accumulation=16"], "must be a multiple of 32"),
        (["runtime.devices=2", "teacher.recipe.batch_size=7"], "does not divide teacher.recipe.batch_size=7"),
        (["runtime.devices=2", "runtime.cohort=4"], "runtime.cohort=4 has no effect with runtime.devices=2"),
        (["runtime.devices=2", "runtime.device=cuda:1"], "is one device and runtime.devices=2 asks for 2"),
        (["runtime.devices=2", "objective=rkd"], "depends on who is in a batch together"),
        (["runtime.devices=2", "objective=clkd"], "compares how classes lie over a whole batch"),
        (["runtime.devices=2", "objective=hid_cls_contrast"], "keeps banks of vectors that follow every batch"),
        (["runtime.devices=2", "objective=lgtm"], "moves the teacher by whole batches"),
        (["runtime.shard_teacher=true"], "has no effect with runtime.devices=1"),
        (["runtime.devices=2", "runtime.shard_teacher=true"], "use runtime.teacher_cache=off"),
        (["runtime.devices=0"], "runtime.devices=0: must be above 0"),
    ],
)
def test_what_devices_cannot_share_is_said_before_anything_is_loaded(
    compose, tiny_bert_dir, tiny_csv_task, words, said
):
    from kdexp.run import spec

    made, problems = spec.prepare(compose(*toy(tiny_bert_dir, tiny_csv_task), *words))
    assert made is None and any(said in problem for problem in problems), problems


def test_the_number_of_devices_is_no_part_of_what_a_run_is(compose, tiny_bert_dir, tiny_csv_task):
    from kdexp.run import spec

    one, two = (spec.make(compose(*toy(tiny_bert_dir, tiny_csv_task), f"runtime.devices={count}")) for count in (1, 2))
    assert (one.id, one.name) == (two.id, two.name)
    assert [stage.key for stage in one.outline] == [stage.key for stage in two.outline]


def test_more_devices_than_there_are(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 4)
    assert machine.problems("cpu", 4) == []
    (problem,) = machine.problems("cpu", 5)
    assert "runtime.devices=5 but this machine has 4 processor(s)" in problem


def test_a_slot_has_the_gpus_of_a_run(monkeypatch):
    monkeypatch.setattr("kdexp.launch.slots.visible_gpus", lambda: ["0", "1", "2", "3", "4"])
    monkeypatch.setattr("kdexp.launch.slots.cores", lambda: 16)
    pairs = slots(None, None, None, {"auto"}, 2)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in pairs] == ["0,1", "2,3"]
    assert pairs[0]["OMP_NUM_THREADS"] == "4"
    on_cpu = slots(None, 2, None, {"cpu"}, 2)
    assert len(on_cpu) == 4 and on_cpu[0]["OMP_NUM_THREADS"] == "4", "a run's two processes share them out"


def test_a_launcher_that_gives_too_few_gpus_is_refused():
    (problem,) = Local(gpus=1).problems(frozenset({"auto"}), 2)
    assert "hydra.launcher.gpus=1 gives a run 1 GPU(s) and runtime.devices=2 asks for 2" in problem
    submitit = pytest.importorskip("kdexp.launch.slurm")
    pytest.importorskip("submitit")
    assert "use hydra.launcher.gpus=4" in submitit.Submitit(gpus=2).problems(frozenset({"cuda"}), 4)[0]
    assert submitit.Submitit(gpus=4).problems(frozenset({"cuda"}), 4) == []
