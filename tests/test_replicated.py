"""Object storage that goes away, two builders of one stage, and what a machine knows better than the storage."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdexp.common import files, results
from kdexp.run.spec import RunSpec
from kdexp.store import leases, replicated, shared_run, upkeep
from kdexp.store.remote import RemoteStore
from kdexp.store.replicated import Replicated
from kdexp.store.stage import Stage
from kdexp.store.store import Store

STAGE = Stage("teacher", "x", {"a": 1}, shared=True)
RESULT: dict[str, dict] = {key: {} for key in results.SHAPE}


def write(text: str):
    def action(work: Path) -> dict:
        (work / "data.txt").write_text(text)
        return {"score": 1.0}

    return action


def quiet(text: str) -> None: ...


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'remote'}"


def test_two_builders_of_one_stage_leave_one_that_is_whole(tmp_path, url):
    found = []
    for name in ("one", "two"):  # other machines, other bits
        store = Store(tmp_path / name)
        store.build(STAGE, write(name), quiet)
        found.append((store.root / STAGE.key, store.get(STAGE.key).meta))
    remote = RemoteStore(url)
    remote.push_stage(*found[0])
    remote.push_stage(*found[1])
    (record,) = [json.loads(Path(remote.at("store", STAGE.key, "meta.json")).read_text())]
    late = remote.at("store", STAGE.key, "ffffffff", "data.txt")
    Path(late).parent.mkdir()
    Path(late).write_text("a third one, whose record never came")
    third = Replicated(Store(tmp_path / "three", 5), remote)
    assert (third.seek(STAGE.key).folder / "data.txt").read_text() == "two" and record["at"]
    assert "at" not in files.read_json(third.root / STAGE.key / "meta.json")


def test_storage_that_is_away_costs_a_warning(tmp_path, url, caplog, monkeypatch):
    store = Replicated(Store(tmp_path / "one", 5), RemoteStore(url))

    def away(*_: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(RemoteStore, "read", away)
    monkeypatch.setattr(RemoteStore, "put", away)
    found, before = store.build(STAGE, write("alone"), quiet)
    assert not before and (found.folder / "data.txt").read_text() == "alone"
    assert "no answer from file://" in caplog.text and "could not be sent" in caplog.text


@pytest.fixture
def hanging(monkeypatch) -> threading.Event:
    """Storage that answers nothing until the event is set; what one call may take is cut to a moment."""
    comes_back, put, cat = threading.Event(), RemoteStore.put, RemoteStore.read

    def late(call):
        def wait(*arguments: object) -> object:
            comes_back.wait(30)
            return call(*arguments)

        return wait

    monkeypatch.setattr(RemoteStore, "put", late(put))
    monkeypatch.setattr(RemoteStore, "read", late(cat))
    monkeypatch.setattr(replicated, "SEND_S", 0.5)
    monkeypatch.setattr(replicated, "TRANSFER_S", 0.5)
    yield comes_back
    comes_back.set()


def test_storage_that_hangs_costs_a_run_one_pause(tmp_path, url, caplog, hanging):
    store = Replicated(Store(tmp_path / "one", 5), RemoteStore(url))
    began = time.monotonic()

    def action(work: Path) -> dict:
        for step in range(5):
            checkpoint(work, step)
            store.saved(STAGE.key)
        return write("alone")(work)

    found, before = store.build(STAGE, action, quiet)
    store.ended([STAGE])
    assert not before and (found.folder / "data.txt").read_text() == "alone"
    assert time.monotonic() - began < 3
    assert "going on alone" in caplog.text and "it still hangs in an earlier call" in caplog.text
    hanging.set()
    store.remote._hanging.join(10)
    store.ended([STAGE])
    assert RemoteStore(url).meta(STAGE.key)["summary"] == {"score": 1.0}, "it is asked again when it has come back"


def test_a_checkpoint_that_was_replaced_while_it_was_sent_is_not_there(tmp_path, url, caplog, hanging):
    """Sending took too long and was left behind; the next checkpoint was written under it."""
    store, work = Replicated(Store(tmp_path / "one", 5), RemoteStore(url)), tmp_path / "one" / "work" / STAGE.key
    checkpoint(work, 1)
    store.saved(STAGE.key)
    checkpoint(work, 2)
    hanging.set()
    store.remote._hanging.join(10)
    assert not store.remote.has_work(STAGE.key)
    store.saved(STAGE.key)
    assert store.remote.has_work(STAGE.key) and files.read_json(work / "pushed.json")
    store.remote.drop_work(STAGE.key)
    assert not [path for path in (tmp_path / "remote").rglob("*") if path.is_file()], "the torn one goes too"


def checkpoint(work: Path, step: int) -> None:
    files.write_json(work / "checkpoint" / "state.json", {"progress": {"step": step}})


@pytest.mark.parametrize(("here", "there", "taken"), [(5000, 200, 5000), (100, 200, 200), (None, 200, 200)])
def test_the_checkpoint_that_got_further_is_continued(tmp_path, url, here, there, taken):
    remote = RemoteStore(url)
    checkpoint(tmp_path / "far", there)
    remote.push_work(STAGE.key, tmp_path / "far")
    store = Replicated(Store(tmp_path / "one", 5), remote)
    work = store.root / "work" / STAGE.key
    if here is not None:
        checkpoint(work, here)
    assert store.seek(STAGE.key, work) is None
    assert files.read_json(work / "checkpoint" / "state.json")["progress"]["step"] == taken


def test_a_result_that_could_not_be_sent_is_sent_by_the_next_command(tmp_path, url, monkeypatch):
    where = tmp_path / "multirun" / "study" / "run"
    results.write(where, RESULT)
    config = SimpleNamespace(runtime=SimpleNamespace(remote=url))
    point = RunSpec(config, "id", "run", where, {}, {}, ())
    with monkeypatch.context() as patch:
        patch.setattr(RemoteStore, "put", lambda *_: (_ for _ in ()).throw(ConnectionError("no route")))
        assert "is finished, but could not be sent" in shared_run.unsent([point])
    assert shared_run.unsent([point]) == "" and (tmp_path / "remote/runs/study/run/result.json").exists()
    shutil.rmtree(where)
    shared_run.meet([point])
    assert results.read(where) == RESULT


def test_gc_leaves_phases_alone_that_unfinished_runs_are_noted_for(tmp_path, capsys):
    store, study = Store(tmp_path / "store"), tmp_path / "study"
    phase = Stage("distill.intermediate", "x", {"a": 1})
    found, _ = store.build(phase, write("weights"), quiet)
    files.write_text(store.root / "needed" / "key.study.run", str(study / "run"))
    files.write_json(study / "study.json", {})
    assert leases.waiting(store.root) == 1 and upkeep.gc(store) == 0
    assert (found.folder / "data.txt").exists() and "1 unfinished runs share phases" in capsys.readouterr().out
    results.write(study / "run", RESULT)
    assert upkeep.gc(store) > 0, "the bytes that were freed"
    assert not (found.folder / "data.txt").exists() and not list((store.root / "needed").iterdir())


@pytest.mark.parametrize("damaged", ["result.json", "predictions/validation.safetensors"])
def test_a_damaged_result_at_the_url_is_set_aside(tmp_path, url, caplog, damaged):
    here, there = (tmp_path / name / "study" / "run" for name in ("here", "there"))
    content = b"answers"
    files.write_bytes(there / "predictions" / "validation.safetensors", content)
    sums = {"validation": hashlib.sha256(content).hexdigest()}
    results.write(there, {**RESULT, "predictions": sums})
    shared_run.SharedRun(RemoteStore(url), there).push()
    remote = RemoteStore(url)
    place = Path(remote.at("runs", "study", "run"))
    (place / damaged).write_bytes(b"{}")
    shared_run.SharedRun(remote, here).pull()
    assert not (here / "result.json").exists() and f"{damaged} " in caplog.text and "set aside" in caplog.text
    assert not (place / "result.json").exists() and list(place.glob("result.json.damaged-*"))
    shared_run.SharedRun(remote, there).hand_in()  # whoever has made it gives it again
    shared_run.SharedRun(remote, here).pull()
    assert results.read(here)["predictions"] == sums
