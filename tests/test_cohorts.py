"""Cohorts: several runs of one process on one pass of a live teacher are, bit for bit, what each of them is alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kdexp.common import files, machine
from kdexp.common.files import DiskFull, Interrupted
from kdexp.common.status import state
from kdexp.common.stop import Stop
from kdexp.launch import cohorts, slots
from kdexp.launch.board import Board
from kdexp.launch.child import INTERRUPTED, STOP, Order, in_process
from kdexp.launch.inline import Basic
from kdexp.launch.queue import RunQueue
from kdexp.run import cohort, execute, spec
from kdexp.train import teachers
from kdexp.train.compiling import compiled_step
from kdexp.train.student import Student
from tests.conftest import program_environment
from tests.test_runs import toy


class Study:
    """Runs of one study, made from words of a command line."""

    def __init__(self, bert: Path, csv: Path, compose) -> None:
        self.given, self.compose = toy(bert, csv), compose

    def specs(self, name: str, members: dict[str, list[str]], *common: str) -> dict[str, spec.RunSpec]:
        every = [*self.given, "runtime.teacher_cache=off", f"study={name}", f"runtime.store=multirun/.{name}", *common]
        return {who: spec.make(self.compose(*every, *words)) for who, words in members.items()}


@pytest.fixture
def study(tmp_path, monkeypatch, tiny_bert_dir, tiny_csv_task, compose):
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()
    return Study(tiny_bert_dir, tiny_csv_task, compose)


def bits(one: spec.RunSpec) -> dict:
    """What a run has computed: its weights' checksum, its scores, its lines of metrics."""
    result = json.loads((one.run_dir / "result.json").read_text())
    lines = [json.loads(line) for line in (one.run_dir / "metrics.jsonl").read_text().splitlines()]
    trained = [(x["stage"], x["step"], x["values"]) for x in lines if x["stage"] != "teacher"]
    weights = files.checksum(Path(result["student"]["weights"]) / "model.safetensors")
    same = ("scores", "best", "mapping", "init", "predictions")
    return {"weights": weights, "lines": trained, **{name: result[name] for name in same}}


@pytest.fixture
def passes(monkeypatch):
    """Count how often a live teacher is run."""
    counted, run = [], teachers.LiveTeacher.__call__

    def count(self, batch):
        counted.append(batch.index.tolist())
        return run(self, batch)

    monkeypatch.setattr(teachers.LiveTeacher, "__call__", count)
    return counted


MEMBERS = {
    "first": ["objective=att_kl", "init=first"],
    "last": ["objective=att_kl", "init=last"],
    "small": ["objective=att_kl", "init=random", "student=l2", "student.num_layers=1"],
    "other": ["objective=hid_seq", "init=first"],
    "faster": ["objective=att_kl", "init=first", "recipe.learning_rate=1e-3", "recipe.epochs=3"],
    "patient": ["objective=pkd", "init=first", "recipe.patience=1", "recipe.learning_rate=1.0"],
}


def test_a_cohort_is_bit_for_bit_what_its_members_are_alone(study, passes):
    single, together, alone = study.specs("single", MEMBERS), study.specs("together", MEMBERS), {}
    for who, one in single.items():
        execute.execute(one)
        alone[who] = len(passes)
        passes.clear()
    assert cohort.carry_out(list(together.values())) == [None] * len(MEMBERS)
    for who in MEMBERS:
        assert bits(single[who]) == bits(together[who]), who
        folder = together[who].run_dir
        assert json.loads((folder / "status.json").read_text())["cohort"] == len(MEMBERS)
        said = (folder / "run.log").read_text()
        assert said.count("run toy-") == 1 and f"run {together[who].name}" in said, "a log is its own run's"
    # Two phases of all but pkd, whose last block is run for the first token only: as many as the longest of them has.
    assert len(passes) == alone["faster"] + alone["patient"] and alone["faster"] == 2 * 3 * 4


def test_seeds_and_tasks_of_their_own_are_kept_apart(study, passes):
    """Company that shares nothing changes nothing."""
    members = {"one": ["objective=att_kl"], "two": ["objective=att_kl", "seed=2"], "short": ["recipe.batch_size=8"]}
    single, together = study.specs("single", members), study.specs("together", members)
    for one in single.values():
        execute.execute(one)
    alone = len(passes)
    assert cohort.carry_out(list(together.values())) == [None] * 3
    assert {who: bits(one) for who, one in single.items()} == {who: bits(one) for who, one in together.items()}
    assert len(passes) == 2 * alone


def test_two_kinds_of_passes_are_two_passes_whatever_the_order_of_those_who_ask(study, passes):
    members = {
        f"{objective}{number}": [f"objective={objective}", f"recipe.learning_rate={number}e-4"]
        for number in (1, 2, 3)
        for objective in ("pkd", "hid_seq")
    }
    common = "objective.schedule=joint", "recipe.epochs=1", "recipe.keep=last", "selection=last"
    single, together = study.specs("single", members, *common), study.specs("together", members, *common)
    execute.execute(single["pkd1"])
    execute.execute(single["hid_seq1"])
    alone = len(passes)
    passes.clear()
    assert cohort.carry_out(list(together.values())) == [None] * 6
    assert len(passes) == alone, "a pass for the first token alone, and one for all, a batch"
    done, with_teacher = [operations(one) for one in together.values()], operations(single["pkd1"])
    student = min(done)  # of somebody in whose turn the teacher was never run
    assert with_teacher > 1.3 * student
    assert sum(done) == pytest.approx(6 * student + 2 * (with_teacher - student), rel=0.02)


def operations(one: spec.RunSpec) -> float:
    last = json.loads((one.run_dir / "result.json").read_text())["stages"][-1]
    return last["tflops_per_s"] * last["seconds"]


class After(Stop):
    """Asks to stop after so many updates."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.left = updates

    def __call__(self) -> bool:
        self.left -= 1
        self.asked = "SIGTERM" if self.left < 0 else ""
        return bool(self.asked)


def test_members_that_stand_at_different_steps_catch_up(study, passes):
    """Whatever the grouping was before: one is new, one has been stopped early, one late."""
    members = {name: MEMBERS[name] for name in ("first", "last", "small")}
    single, together = study.specs("single", members), study.specs("together", members)
    for one in single.values():
        execute.execute(one)
    execute.execute(study.specs("together", {"teacher": ["objective=kd"]})["teacher"])
    for who, updates in (("last", 2), ("small", 4)):
        with pytest.raises(Interrupted):
            execute.execute(together[who], After(updates))
    passes.clear()
    assert cohort.carry_out(list(together.values())) == [None] * 3
    assert {who: bits(one) for who, one in single.items()} == {who: bits(one) for who, one in together.items()}
    assert len(passes) == 8 + 8, "the updates of two phases, each once"


def test_members_that_fail_leave_the_others_going(study, monkeypatch):
    well = {name: MEMBERS[name] for name in ("first", "small")}
    rates = {"nan": "2e-3", "disk": "4e-3", "error": "5e-3"}
    ill = {name: ["objective=att_kl", f"recipe.learning_rate={rate}"] for name, rate in rates.items()}
    single, together = study.specs("single", well), study.specs("together", {**ill, **well})
    for one in single.values():
        execute.execute(one)
    execute.execute(study.specs("together", {"teacher": ["objective=kd"]})["teacher"])
    update, who = Student.update, {one.name: name for name, one in together.items()}

    def spoil(self, rate, number):
        update(self, rate, number)
        name = who[threading.current_thread().name]
        if self.progress.step == 3 and name == "nan":
            next(self.model.parameters()).data.fill_(float("nan"))
        elif self.progress.step == 3 and name in ill:
            raise {"disk": DiskFull("no room"), "error": RuntimeError("broken")}[name]

    monkeypatch.setattr(Student, "update", spoil)
    ends = dict(zip(together, cohort.carry_out(list(together.values())), strict=True))
    assert [name for name, end in ends.items() if end is not None] == list(ill)
    told = {"nan": "is not finite", "disk": "DiskFull: no room", "error": "RuntimeError: broken"}
    logs = {name: (one.run_dir / "run.log").read_text() for name, one in together.items()}
    for name, sentence in told.items():
        noted = json.loads((together[name].run_dir / "status.json").read_text())
        assert noted["state"] == "failed" and sentence in noted["error"]
        assert [other for other, text in logs.items() if sentence in text] == [name]
    assert {name: bits(one) for name, one in single.items()} == {name: bits(together[name]) for name in well}
    monkeypatch.setattr(Student, "update", update)
    execute.execute(study.specs("single", {"disk": ill["disk"]})["disk"])
    assert cohort.carry_out([together[name] for name in ill]) == [None] * 3, "the same command takes them up"
    assert bits(study.specs("single", {"disk": ill["disk"]})["disk"]) == bits(together["disk"])


def test_a_second_interrupt_does_not_wait(study, monkeypatch):
    """Every member ends at its next turn, as interrupted, and holds nothing."""
    together = study.specs("together", {name: MEMBERS[name] for name in ("first", "last")})
    update = Student.update

    def interrupted(self, rate, number):
        update(self, rate, number)
        if threading.current_thread().name == together["first"].name and self.model.config.num_hidden_layers == 2:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.5)

    monkeypatch.setattr(Student, "update", interrupted)
    ends = cohort.carry_out(list(together.values()))
    assert all(isinstance(end, KeyboardInterrupt | Interrupted) for end in ends)
    assert {state(one.run_dir) for one in together.values()} == {"interrupted"}
    monkeypatch.setattr(Student, "update", update)
    single = study.specs("single", {"first": MEMBERS["first"]})["first"]
    execute.execute(single)
    assert cohort.carry_out(list(together.values())) == [None, None]
    assert bits(single) == bits(together["first"])


WORDS = ["init=first,last,spread", "objective=att_kl,kd", "hydra.launcher.slots=1", "-m"]


@pytest.mark.slow
def test_a_killed_grid_of_which_some_can_join_goes_on_in_other_groups(
    kdexp, study, tmp_path, tiny_bert_dir, tiny_csv_task
):
    """kd looks its teacher's answers up, so it is alone; att_kl's first phase would store more than is allowed."""
    given = [*toy(tiny_bert_dir, tiny_csv_task), "study=grid", "runtime.teacher_cache=1KB", "runtime.checkpoint_s=0"]
    given += ["recipe.epochs=8"]
    shown = kdexp([*given, *WORDS, "dry=true"])
    assert "cohorts  3 of 6 runs train together, on one pass of their teacher: 1 of 3 runs (1 at once)" in shown.stdout

    folders = tmp_path / "multirun" / "grid"
    command = [sys.executable, "-m", "kdexp", *given, *WORDS]
    process = subprocess.Popen(command, cwd=tmp_path, env=program_environment({}), start_new_session=True)
    deadline, together = time.time() + 120, []
    while len(together) < 3:
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.02)
        lines = [path.read_text() for path in folders.glob("toy-att_kl-*/metrics.jsonl")]
        together = [text for text in lines if "distill.intermediate" in text]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    noted = [json.loads(path.read_text())["cohort"] for path in folders.glob("toy-att_kl-*/status.json")]
    assert noted == [3, 3, 3] and not list(folders.glob("toy-att_kl-*/result.json"))

    done = kdexp([*given, *WORDS, "runtime.cohort=2"])
    assert done.returncode == 0, done.stdout + done.stderr
    sizes = {path.parent.name: json.loads(path.read_text())["cohort"] for path in folders.glob("*/status.json")}
    assert sorted(size for name, size in sizes.items() if "att_kl" in name) == [1, 2, 2]
    assert {size for name, size in sizes.items() if "-kd-" in name} == {1}
    for words in (["objective=att_kl", f"init={init}"] for init in ("first", "last", "spread")):
        one, alone = (
            spec.make(study.compose(*given, *words, f"study={name}", f"runtime.store=multirun/.{name}"))
            for name in ("grid", "alone")
        )
        execute.execute(alone)
        result = json.loads((one.run_dir / "result.json").read_text())
        weights = json.loads((alone.run_dir / "result.json").read_text())["student"]["weights"]
        assert files.checksum(Path(result["student"]["weights"]) / "model.safetensors") == files.checksum(
            Path(weights) / "model.safetensors"
        )


def test_the_process_of_a_job_carries_a_cohort_and_speaks_for_all(study, tmp_path):
    """As a task of Ray or a job of Slurm starts it; a member that is asked to stop by a file stops them all."""
    members = {init: ["objective=att_kl", f"init={init}", "recipe.steps=2"] for init in ("first", "last")}
    points = list(study.specs("far", members).values())
    order = Order.of(points, slots.environment(1), str(tmp_path), far=True)
    points[1].run_dir.mkdir(parents=True)
    (points[1].run_dir / STOP).touch()
    assert in_process(order) == INTERRUPTED
    (points[1].run_dir / STOP).unlink()
    assert in_process(order) == 0
    noted = [json.loads((one.run_dir / "status.json").read_text()) for one in points]
    assert [(one["state"], one["cohort"]) for one in noted] == [("finished", 2)] * 2
    results = [json.loads((one.run_dir / "result.json").read_text()) for one in points]
    assert all(result["runtime"]["allocator"] == machine.allocator() for result in results)
    assert {one["cohort"] for result in results for one in result["runtime"]["teacher"].values()} == {2}
    single = study.specs("single", {"last": members["last"]})["last"]
    execute.execute(single)
    assert bits(single) == bits(points[1])


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit", "ray"])
def test_a_job_of_a_cluster_carries_a_cohort(kdexp, tmp_path, tiny_bert_dir, tiny_csv_task, launcher):
    pytest.importorskip(launcher)
    given = [*toy(tiny_bert_dir, tiny_csv_task), "study=far", "runtime.teacher_cache=off", "objective=att_kl"]
    given += ["init=first,last,spread", "recipe.steps=2", "hydra.launcher.slots=1", f"hydra/launcher={launcher}", "-m"]
    given += ["hydra.launcher.executor=local"] if launcher == "submitit" else []
    done = kdexp(given)
    assert done.returncode == 0, done.stdout + done.stderr
    folders = sorted((tmp_path / "multirun" / "far").glob("toy-*"))
    noted = [json.loads((folder / "status.json").read_text()) for folder in folders]
    assert [(one["state"], one["cohort"]) for one in noted] == [("finished", 3)] * 3
    assert len({one["pid"] for one in noted}) == 1
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    assert all(result["runtime"]["allocator"] == machine.allocator() for result in results)
    assert {one["cohort"] for result in results for one in result["runtime"]["teacher"].values()} == {3}


def test_one_process_carries_a_grid_out_in_cohorts(study):
    members = {init: ["objective=att_kl", f"init={init}", "recipe.steps=2"] for init in ("first", "last", "spread")}
    points = list(study.specs("inline", members).values())
    outcomes = Basic().launch(points, Board(len(points)))
    assert [(outcome.point.id, outcome.state) for outcome in outcomes] == [(one.id, "finished") for one in points]
    noted = [json.loads((one.run_dir / "status.json").read_text()) for one in points]
    assert [one["cohort"] for one in noted] == [3, 3, 3]


def test_how_many_go_together(study):
    members = {str(rate): [f"recipe.learning_rate={rate}e-4"] for rate in range(1, 7)} | {"seed": ["seed=2"]}
    points = list(study.specs("grid", members, "objective=hid_seq").values())
    two = "6 of 7 runs train together, on one pass of their teacher: 1 of 4 runs, 1 of 2 runs (2 at once)"
    assert cohorts.said(points, 2) == two
    assert cohorts.said(points, 1).endswith("1 of 6 runs (1 at once)")
    assert cohorts.said(points, 7) == "", "every run has a slot"
    assert cohorts.said(points, 1, 1.0).endswith("2 of 3 runs (1 at once)")
    assert cohorts.said(points, 1, 0.1) == "", "two students and their teacher would not have the memory"
    assert cohorts.said(points, None) == "6 of 7 runs may train together, if there are fewer slots than runs"
    few = {name: members[name] for name in ("1", "2", "3")}
    for word, expected in (("off", ""), ("2", "1 of 2 runs (1 at once)"), ("1", "")):
        several = list(study.specs("grid", few, "objective=hid_seq", f"runtime.cohort={word}").values())
        assert cohorts.said(several, 1).endswith(expected) and bool(cohorts.said(several, 1)) == bool(expected)
    recorded = "runtime.device=auto", "runtime.compile_mode=reduce-overhead"
    graphs = study.specs("grid", few, "objective=hid_seq", *recorded)
    assert cohorts.said(list(graphs.values()), 1) == "", "a recorded graph writes again where its answers lie"
    stored = study.specs("grid", few, "objective=hid_seq", "runtime.teacher_cache=1GB")
    assert cohorts.said(list(stored.values()), 1) == "", "what the teacher says is looked up"


def test_a_queue_takes_company_of_those_that_wait_for_nobody(study):
    points = study.specs("grid", {n: [f"init={n}"] for n in ("first", "last", "spread", "random")}, "objective=att_kl")
    first, last, spread, random = points.values()
    queue = RunQueue(list(points.values()), {last.id: {"shared"}, random.id: {"shared"}}, cost={spread.id: 9.0})
    assert queue.next([random]) is spread
    assert queue.left == 3 and queue.beside(spread, [random], 3) == [first] and queue.left == 2


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1.5", "1000", "null"])
def test_a_size_that_cannot_be_is_refused(study, wrong):
    _, problems = spec.prepare(study.compose(*study.given, f"runtime.cohort={wrong}"))
    assert len(problems) == 1 and "choose auto, off, or a number of runs from 1 to 999" in problems[0]


def test_the_setting_decides_no_identity(study):
    words = {word: [f"runtime.cohort={word}"] for word in ("auto", "off", "3")}
    assert len({one.id for one in study.specs("x", words).values()}) == 1


def test_each_thread_compiles_alike():
    """PyTorch keeps settings of compilation by thread, and a member of a cohort is one."""
    import torch._dynamo
    import torch._inductor.config as inductor

    found = []

    def look() -> None:
        compiled_step("cpu")
        found.append((torch._dynamo.config.recompile_limit, inductor.fallback_random))

    for _ in range(2):
        thread = threading.Thread(target=look)
        thread.start(), thread.join()
    assert found == [(64, True)] * 2
