"""The store: built once, continued after a kill, damage named."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import time
from pathlib import Path

import pytest

from kdexp.cli import commands
from kdexp.common import results
from kdexp.store.stage import Stage, order
from kdexp.store.store import Store

QUIET = lambda text: None  # noqa: E731


def stage(**settings) -> Stage:
    return Stage("teacher", "distill.fine_tune", {"a": 1, **settings})


def write(work: Path) -> dict:
    (work / "data.txt").write_text("weights")
    return {"score": 1.0}


def test_key_depends_on_settings_action_and_parents():
    base = stage()
    assert base.key == stage().key
    others = [stage(a=2), Stage("teacher", "other", {"a": 1}), Stage("t", base.action, {"a": 1}, {"start": stage(a=3)})]
    assert len({base.key, *(o.key for o in others)}) == 4
    assert Stage("another name", base.action, {"a": 1}).key == base.key


def test_order_is_parents_first_each_once():
    first = stage()
    second = Stage("b", "x", {}, {"teacher": first})
    third = Stage("c", "x", {"n": 2}, {"teacher": first, "start": second})
    assert [s.name for s in order([third])] == ["teacher", "b", "c"]


def test_built_once(tmp_path):
    store = Store(tmp_path)
    found, reused = store.build(stage(), write, QUIET)
    assert not reused and found.summary == {"score": 1.0}
    again, reused = store.build(stage(), lambda work: pytest.fail("built twice"), QUIET)
    assert reused and again.summary == found.summary


def test_damage_is_named_and_found_by_verify(tmp_path, capsys):
    store = Store(tmp_path)
    found, _ = store.build(stage(), write, QUIET)
    (found.folder / "data.txt").write_text("weightz")
    with pytest.raises(ValueError, match="data.txt is damaged"):
        store.get(stage().key)
    assert commands.main(["store", f"store={tmp_path}", "verify"]) == 1
    assert "1 damaged" in capsys.readouterr().out


def test_a_failed_stage_leaves_its_work_for_the_next_attempt(tmp_path):
    store = Store(tmp_path)

    def fails(work: Path) -> dict:
        (work / "half.txt").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.build(stage(), fails, QUIET)
    assert store.get(stage().key) is None
    seen = []
    store.build(stage(), lambda work: seen.append((work / "half.txt").exists()) or {}, QUIET)
    assert seen == [True]


def _slow(root: str, count: str) -> None:
    def action(work: Path) -> dict:
        with open(count, "a") as file:
            file.write("x")
        time.sleep(0.5)
        return {}

    Store(Path(root)).build(stage(), action, QUIET)


def test_eight_processes_build_it_once(tmp_path):
    count = tmp_path / "count"
    workers = [mp.get_context("fork").Process(target=_slow, args=(str(tmp_path / "s"), str(count))) for _ in range(8)]
    [w.start() for w in workers]
    [w.join(60) for w in workers]
    assert [w.exitcode for w in workers] == [0] * 8 and count.read_text() == "x"


def _forever(root: str) -> None:
    def action(work: Path) -> dict:
        (work / "begun").touch()
        time.sleep(600)
        return {}

    Store(Path(root)).build(stage(), action, QUIET)


def test_a_killed_builder_holds_no_lock(tmp_path):
    worker = mp.get_context("fork").Process(target=_forever, args=(str(tmp_path),))
    worker.start()
    begun = tmp_path / "work" / stage().key / "begun"
    deadline = time.time() + 30
    while not begun.exists() and time.time() < deadline:
        time.sleep(0.02)
    with pytest.raises(TimeoutError, match=f"process {worker.pid}"):
        Store(tmp_path, timeout=0.3).build(stage(), write, QUIET)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    _, reused = Store(tmp_path, timeout=5).build(stage(), write, QUIET)
    assert not reused


def test_dropping_weights_keeps_the_record(tmp_path):
    store = Store(tmp_path)
    found, _ = store.build(stage(), write, QUIET)
    store.drop_weights(stage().key)
    assert not (found.folder / "data.txt").exists()
    assert store.get(stage().key).summary == {"score": 1.0}


def test_weights_in_use_are_not_dropped(tmp_path):
    store = Store(tmp_path)
    found, _ = store.build(stage(), write, QUIET)
    with store.using([stage().key]):
        Store(tmp_path).drop_weights(stage().key)
        assert (found.folder / "data.txt").exists()
    store.drop_weights(stage().key)
    assert not (found.folder / "data.txt").exists()


def test_gc_keeps_students_that_results_name(tmp_path, capsys):
    store = Store(tmp_path / ".store")
    named, _ = store.build(stage(), write, QUIET)
    other, _ = store.build(stage(a=2), write, QUIET)
    empty = {key: {} for key in results.SHAPE}
    results.write(tmp_path / "study" / "run", {**empty, "student": {"weights": str(named.folder)}})
    commands.main(["store", f"store={store.root}", "gc"])
    assert (named.folder / "data.txt").exists() and not (other.folder / "data.txt").exists()
    commands.main(["store", f"store={store.root}", "gc", "all"])
    assert not (named.folder / "data.txt").exists()


def test_command_line(tmp_path, capsys):
    store = Store(tmp_path)
    store.build(stage(), write, QUIET)
    assert commands.main(["store", f"store={tmp_path}", "list"]) == 0
    assert "1 finished stages" in capsys.readouterr().out
    assert commands.main(["store", f"store={tmp_path}", "show", stage().key[:8]]) == 0
    assert '"score": 1.0' in capsys.readouterr().out
    assert commands.main(["store", f"store={tmp_path}", "gc"]) == 0
    assert commands.main(["store", f"store={tmp_path}", "nonsense"]) == 2
