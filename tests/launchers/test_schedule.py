"""In which order points start, and how many at once."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from kdexp.common import results
from kdexp.launch import slots as machine
from kdexp.launch.base import Outcome
from kdexp.launch.board import Board, duration, summary
from kdexp.launch.queue import RunQueue, expected
from kdexp.run.spec import RunSpec


def point(name: str, task: str = "alpha", objective: str = "kd", folder: Path = Path("nowhere")) -> RunSpec:
    config = SimpleNamespace(runtime=SimpleNamespace(device="auto", devices=1, cohort="off"), study="s", seed=1)
    labels = {"task": task, "objective": objective, "student": "", "teacher": ""}
    return RunSpec(config, name, name, folder / name, labels, {}, ())


def test_points_of_a_teacher_that_is_being_built_wait_behind_others() -> None:
    a1, a2, b1 = point("a1"), point("a2"), point("b1")
    needs = {"a1": frozenset({"A"}), "a2": frozenset({"A"}), "b1": frozenset({"B"})}
    schedule = RunQueue([a1, a2, b1], needs)
    first = schedule.next([])
    second = schedule.next([first])
    assert (first.name, second.name) == ("a1", "b1")
    assert schedule.next([first, second]).name == "a2"  # nothing else is left to do
    assert len(schedule) == 0


def test_a_built_teacher_holds_nobody_up() -> None:
    needs = {"a1": frozenset({"A"}), "a2": frozenset({"A"}), "b1": frozenset({"B"})}
    schedule = RunQueue([point("a1"), point("a2"), point("b1")], needs)
    first = schedule.next([])
    schedule.finished(first)
    assert schedule.next([first]).name == "a2"


def test_a_run_that_trains_its_student_has_its_teacher(tmp_path: Path) -> None:
    a1, a2, b1 = point("a1", folder=tmp_path), point("a2"), point("b1")
    needs = {"a1": frozenset({"A"}), "a2": frozenset({"A"}), "b1": frozenset({"B"})}
    schedule = RunQueue([a1, b1, a2, point("a3")], {**needs, "a3": frozenset({"A"})}, {"A": "teacher", "B": "teacher"})
    first = schedule.next([])
    a1.run_dir.mkdir()
    (a1.run_dir / "metrics.jsonl").write_text('{"stage": "teacher"}\n')
    assert schedule.next([first]).name == "b1"
    (a1.run_dir / "metrics.jsonl").write_text('{"stage": "teacher"}\n{"stage": "distill.prediction"}\n')
    assert schedule.next([first, b1]).name == "a2"


def test_longest_first() -> None:
    schedule = RunQueue([point("a"), point("b"), point("c")], cost={"a": 1.0, "b": 5.0, "c": 3.0})
    assert [schedule.next([]).name for _ in range(3)] == ["b", "c", "a"]


def test_expected_cost_comes_from_the_nearest_finished_runs(tmp_path: Path) -> None:
    done = [point("x", "alpha", "kd", tmp_path), point("y", "alpha", "att", tmp_path)]
    for one, took in zip(done, (10.0, 30.0), strict=True):
        results.write(one.run_dir, {**{key: {} for key in results.SHAPE}, "cost": {"seconds": took}})
    todo = [point("1", "alpha", "kd"), point("2", "alpha", "hid"), point("3", "beta", "kd")]
    assert expected(todo, done) == {"1": 10.0, "2": 20.0}


def test_slots_follow_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "visible_gpus", list)
    monkeypatch.setattr(machine, "free_memory_gb", lambda: 5.0)
    assert machine.describe(machine.slots(None, None, None, {"auto"})) == {"slots": 8, "threads": 1, "gpus": 0}
    assert len(machine.slots(None, 2, None, {"cpu"})) == 4
    assert len(machine.slots(None, None, 1.5, {"cpu"})) == 3
    assert len(machine.slots(6, None, 1.5, {"cpu"})) == 6
    monkeypatch.setattr(machine, "visible_gpus", lambda: ["0", "3"])
    found = machine.slots(None, None, 1.5, {"auto"})
    assert machine.describe(found) == {"slots": 2, "threads": 4, "gpus": 2}
    assert [env["CUDA_VISIBLE_DEVICES"] for env in machine.slots(3, None, None, {"cuda"})] == ["0", "3", "0"]
    assert machine.describe(machine.slots(None, None, None, {"cpu"}))["slots"] == 8


def test_the_board_writes_one_line_a_run_and_the_summary_names_logs() -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    board = Board(3, 1, console)
    board.start(2)
    board.running(point("a"))
    board.done(Outcome(point("a"), "finished", 2.0))
    wrong = Outcome(point("b[x]"), "failed", 1.0, "ValueError: [no]")
    board.done(wrong)
    board.close()
    assert board.done_count == 3
    twin = Outcome(point("c"), "failed", 1.0, "ValueError: [no]")
    summary("s", [wrong, twin, Outcome(point("a"), "finished")], 100.0, "python -m kdexp x", console)
    text = out.getvalue()
    assert "2/3  finished  a" in text
    assert "3/3  failed  b[x]  ValueError: [no]" in text
    assert "failed: b[x]: ValueError: [no]" in text
    assert "b[x]/run.log" in text
    assert "1 more failed alike: c" in text
    assert "run the same command again: python -m kdexp x" in text


@pytest.mark.parametrize(("value", "said"), [(45, "45 s"), (600, "10 min"), (12600, "3.5 h")])
def test_durations(value: float, said: str) -> None:
    assert duration(value) == said
