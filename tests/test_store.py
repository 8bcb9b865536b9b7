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
from tests.damage import DAMAGE

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


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["data.txt", "meta.json"])
def test_a_damaged_stage_is_set_aside_and_built_again(name: str, damage: str, tmp_path: Path, capsys):
    store, said = Store(tmp_path), []
    found, _ = store.build(stage(), write, QUIET)
    DAMAGE[damage](found.folder / name)
    assert commands.main(["store", f"store={tmp_path}", "verify"]) == 1
    assert f"{found.folder / name} is damaged (" in capsys.readouterr().out
    again, reused = store.build(stage(), write, said.append)
    assert not reused and again.folder == found.folder and (again.folder / "data.txt").read_text() == "weights"
    assert f"{found.folder / name} is damaged (" in said[0] and "is set aside in" in said[0] and len(said) == 1
    assert (tmp_path / "damaged" / f"{found.folder.name}.damaged" / name).is_file()
    assert commands.main(["store", f"store={tmp_path}", "verify"]) == 0
    assert commands.main(["store", f"store={tmp_path}", "gc"]) == 0 and not list((tmp_path / "damaged").iterdir())


@pytest.mark.parametrize("name", ["data.txt", "meta.json"])
def test_a_missing_file_is_damage_too(name: str, tmp_path: Path):
    store, said = Store(tmp_path), []
    found, _ = store.build(stage(), write, QUIET)
    (found.folder / name).unlink()
    _, reused = store.build(stage(), write, said.append)
    assert not reused and f"{name} is damaged (it is missing)" in said[0]


def test_what_a_killed_builder_left_is_no_part_of_the_result(tmp_path: Path):
    store = Store(tmp_path)
    work = tmp_path / "work" / stage().key
    (work / "trajectory").mkdir(parents=True)
    for name in (".holder.json.0123abcd.tmp", "trajectory/.w.safetensors.0123abcd.tmp", "holder.json", "pushed.json"):
        (work / name).write_text("half")
    found, _ = store.build(stage(), write, QUIET)
    assert list(found.meta["files"]) == ["data.txt"]
    assert sorted(p.name for p in found.folder.rglob("*") if p.is_file()) == ["data.txt", "meta.json"]


def test_a_builder_that_was_killed_before_the_rename_has_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store, key = Store(tmp_path), stage().key
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_place", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.build(stage(), write, QUIET)
    assert store.get(key) is None and (tmp_path / "work" / key / "meta.json").is_file()
    _, reused = store.build(stage(), lambda work: pytest.fail("built twice"), QUIET)
    assert reused and store.get(key).summary == {"score": 1.0}


def test_a_stage_is_on_the_disk_before_it_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Else a power cut would leave an empty file below a whole record."""
    events: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: (events.append(os.readlink(f"/proc/self/fd/{handle}")), sync(handle))
    )
    monkeypatch.setattr(os, "replace", lambda *names: (events.append(f"-> {names[1]}"), replace(*names)))
    Store(tmp_path).build(stage(), write, QUIET)
    work, target = tmp_path / "work" / stage().key, tmp_path / stage().key
    record, place = events.index(f"-> {work / 'meta.json'}"), events.index(f"-> {target}")
    assert events.index(str(work / "data.txt")) < record < place
    assert str(work) in events[record:place] and str(tmp_path) in events[place:]
