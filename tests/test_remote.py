"""Object storage: two machines (two folders) that share nothing but a URL; the same with a real S3 server."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdexp.check import remote as check
from kdexp.common import files
from kdexp.store.remote import RemoteStore
from kdexp.store.replicated import Replicated
from kdexp.store.shared_run import SharedRun
from kdexp.store.stage import Stage
from kdexp.store.store import Store
from tests.test_runs import results, toy

SLOW_TRAINING = ["recipe.epochs=60", "runtime.checkpoint_s=0.2", "objective=att_kl"]


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Path, Path, str]:
    for name in "AB":
        (tmp_path / name).mkdir()
    return tmp_path / "A", tmp_path / "B", f"file://{tmp_path / 'remote'}"


@pytest.fixture
def overrides(tiny_bert_dir, tiny_csv_task) -> list[str]:
    return toy(tiny_bert_dir, tiny_csv_task)


def stores(machines, stage: Stage) -> tuple[Replicated, Replicated, RemoteStore]:
    a, b, url = machines
    return Replicated(Store(a, 5), RemoteStore(url)), Replicated(Store(b, 5), RemoteStore(url)), RemoteStore(url)


def shared(**settings) -> Stage:
    return Stage("teacher", "x", {"a": 1, **settings}, shared=True)


def write(work: Path) -> dict:
    (work / "part").mkdir(exist_ok=True)
    (work / "part" / "data.txt").write_text("weights")
    return {"score": 1.0}


def never(work: Path) -> dict:
    raise AssertionError("built again")


def quiet(text: str) -> None: ...


def test_a_shared_stage_is_built_on_one_machine_only(machines):
    a, b, remote = stores(machines, shared())
    a.build(shared(), write, quiet)
    found, reused = b.build(shared(), never, quiet)
    assert reused and (found.folder / "part" / "data.txt").read_text() == "weights"
    assert not list((b.root / "incoming").iterdir()) and not remote.has_work(shared().key)


def test_an_upload_that_was_cut_off_is_invisible(machines):
    a, b, remote = stores(machines, shared())
    found, _ = a.build(shared(), write, quiet)
    remote.fs.rm(remote.at("store", shared().key, "meta.json"))
    assert b.seek(shared().key) is None
    a.ended([shared()])  # a later run of the first machine completes it
    assert b.seek(shared().key).summary == found.summary


def test_damage_at_the_url_is_set_aside_and_built_again(machines, caplog):
    a, b, remote = stores(machines, shared())
    a.build(shared(), write, quiet)
    place = Path(remote.at("store", shared().key))
    for damage in (lambda path: path.write_text("weightz"), lambda path: path.unlink()):
        (path,) = (p for p in place.glob("*/part/data.txt") if p.read_text() == "weights")
        damage(path)
        caplog.clear()
        assert b.seek(shared().key) is None, "who only looks leaves it where it is"
        assert (place / "meta.json").is_file() and "data.txt is damaged or missing" in caplog.text
        assert b.build(shared(), write, quiet)[1] is False
        assert "/data.txt is damaged or missing" in caplog.text and "it is set aside (file://" in caplog.text
        assert remote.pull_stage(shared().key, machines[0] / secrets.token_hex(4))["summary"] == {"score": 1.0}
        b.store.remove(shared().key)
        path.unlink(missing_ok=True)
    (place / "meta.json").write_text("{}")
    assert b.build(shared(), write, quiet)[1] is False, "a damaged record too"
    (place / "meta.json").write_text("[]")
    a.ended([shared()])  # this machine has the stage, and gives it again
    assert remote.meta(shared().key)["summary"] == {"score": 1.0}


def test_damage_that_cannot_be_set_aside_is_named(machines, monkeypatch):
    a, b, remote = stores(machines, shared())
    a.build(shared(), write, quiet)
    next(Path(remote.at("store", shared().key)).glob("*/part/data.txt")).write_text("weightz")

    def refused(*_: object) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr(type(remote.fs), "mv", refused)
    with pytest.raises(
        ValueError, match=r"data.txt is damaged.*cannot be set aside.*read only.*delete the folder file:"
    ):
        b.build(shared(), write, quiet)


def test_a_checkpoint_moves_whole_and_the_newest_wins(machines, caplog):
    stage = Stage("distill", "x", {})
    a, b, remote = stores(machines, stage)

    def begun(store: Replicated, content: str) -> Callable[[Path], dict]:
        def action(work: Path) -> dict:
            seen.append((work / "checkpoint").read_text() if (work / "checkpoint").exists() else None)
            (work / "checkpoint").write_text(content)
            store.saved(stage.key)
            (work / "checkpoint").write_text(content + "+")
            store.saved(stage.key)
            raise KeyboardInterrupt

        return action

    seen: list[str | None] = []
    for store, content in ((a, "1"), (b, "2"), (a, "3")):
        with pytest.raises(KeyboardInterrupt):
            store.build(stage, begun(store, content), quiet)
    assert seen == [None, "1+", "2+"], "each continues from what the other one sent last"
    assert len(remote._works(stage.key)) == 1
    (newest,) = remote._works(stage.key)
    Path(remote.at("work", stage.key, newest, "checkpoint")).write_text("?")
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        b.build(stage, begun(b, "4"), quiet)
    assert f"work/{stage.key}/{newest}/checkpoint is damaged" in caplog.text and "set aside" in caplog.text
    assert seen == ["2+"], "its own is what is left"


def test_what_stays_follows_the_weights_that_are_kept(machines):
    stage = Stage("distill", "x", {})
    a, b, remote = stores(machines, stage)

    def long(work: Path) -> dict:
        (work / "checkpoint").write_text("1")
        a.saved(stage.key)
        return write(work)

    a.build(stage, long, quiet)
    assert remote.meta(stage.key) is None, "no other run needs it"
    assert b.build(stage, never, quiet)[1], "but the same run, elsewhere, does not repeat it"
    a.drop_weights(stage.key)
    a.ended([stage])
    assert remote.meta(stage.key)["dropped"] and not remote.has_work(stage.key)


def test_a_url_that_cannot_work_is_one_sentence(tmp_path, kdexp, overrides):
    (tmp_path / "file").write_text("")
    for url, expected in (
        ("s4://bucket/x", "s4 is no protocol of fsspec"),
        ("bucket/x", "is no URL"),
        ("ftp://me:word@host/x", "ftp://me:***@host/x holds a password"),
        (f"file://{tmp_path}/file/below", "check the address"),
    ):
        (said,) = check.problems(url)
        assert expected in said
        assert "word" not in said.replace("password", "")
    done = kdexp([*overrides, "runtime.remote=s4://bucket/x"])
    assert done.returncode == 2 and "One thing must change" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "multirun").exists()


def test_a_run_is_never_repeated_on_another_machine(machines, kdexp, overrides):
    a, b, url = machines
    command = [*overrides, "objective=att_kl", f"runtime.remote={url}"]
    assert kdexp(command, cwd=a).returncode == 0
    again = kdexp(command, cwd=b)
    assert again.returncode == 0, again.stderr
    assert results(a, "adhoc") == results(b, "adhoc")
    assert not list((b / "multirun" / ".store").glob("*/meta.json")), "nothing was carried out there"
    (log,) = (b / "multirun" / "adhoc").glob("*/metrics.jsonl")
    assert log.stat().st_size
    (result,) = results(b, "adhoc").values()
    kept = {path.stem: files.checksum(path) for path in (log.parent / "predictions").iterdir()}
    assert kept == result["predictions"] and "validation" in kept
    other = kdexp([*command, "seed=2"], cwd=b)
    assert other.returncode == 0, other.stderr
    stages = {r["run"]["seed"]: r["stages"] for r in results(b, "adhoc").values()}[2]
    assert [s["reused"] for s in stages] == [True, False, False], "the teacher was fetched"


def kill_in_the_middle(process: Any, remote: Callable[[], bool]) -> None:
    """Kill a run without warning when ``remote`` says that enough has been sent."""
    end = time.time() + 120
    while not remote() and time.time() < end and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def moved(kdexp, begin, machines, overrides, url: str, sent: Callable[[], bool], env: dict | None = None) -> None:
    """A run killed on one machine continues on another, bit for bit."""
    a, b, _ = machines
    whole = a.parent / "whole"
    whole.mkdir()
    command = [*overrides, *SLOW_TRAINING]
    assert kdexp(command, cwd=whole).returncode == 0
    kill_in_the_middle(begin([*command, f"runtime.remote={url}"], a, env), sent)
    assert not results(a, "adhoc")
    done = kdexp([*command, f"runtime.remote={url}"], cwd=b, env=env)
    assert done.returncode == 0, done.stderr
    (expected,), (found,) = results(whole, "adhoc").values(), results(b, "adhoc").values()
    assert found["scores"] == expected["scores"] and found["best"] == expected["best"]
    theirs, mine = (Path(r["student"]["weights"]) / "model.safetensors" for r in (expected, found))
    assert theirs.read_bytes() == mine.read_bytes()
    (log,) = (b / "multirun" / "adhoc").glob("*/run.log")
    assert "continues from a checkpoint at" in log.read_text()
    steps = [json.loads(line) for line in log.with_name("metrics.jsonl").read_text().splitlines()]
    assert min(s["step"] for s in steps if s["stage"] == "distill.intermediate") < 40, "what the first machine wrote"


def test_a_killed_run_continues_on_another_machine_bit_for_bit(machines, kdexp, begin, overrides):
    remote = machines[0].parent / "remote"

    def sent() -> bool:
        """The third checkpoint of a phase after the teacher's."""
        return any(p.parent.name >= "00000003" for p in remote.glob("work/*/*/manifest.json"))

    moved(kdexp, begin, machines, overrides, machines[2], sent)
    assert not list(remote.glob("work/*/*/manifest.json")), "nothing unfinished is left behind"


def test_a_study_is_divided_between_machines(machines, kdexp, overrides):
    a, b, url = machines
    grid = ["-m", "study=four", "hydra.launcher.slots=2", f"runtime.remote={url}", *overrides]
    assert kdexp([*grid, "objective=kd,hid_seq", "seed=1"], cwd=a).returncode == 0
    done = kdexp([*grid, "objective=kd,hid_seq", "seed=1,2"], cwd=b)
    assert done.returncode == 0, done.stderr
    mine, theirs = results(b, "four"), results(a, "four")
    assert len(mine) == 4 and all(mine[name] == result for name, result in theirs.items())
    assert all(r["stages"][0]["reused"] for r in mine.values() if r["run"]["seed"] == 2), "the teacher came from there"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, str], Callable]]:
    """A server that speaks S3's own protocol, with one bucket; (URL, environment, listing)."""
    pytest.importorskip("moto", reason="needs moto[server]")
    pytest.importorskip("flask", reason="needs moto[server]")
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    env = {
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
    }  # fmt: skip
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        fs = s3fs.S3FileSystem(endpoint_url=address, use_listings_cache=False, skip_instance_cache=True)
        for _ in range(100):
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        fs.mkdir("bucket")
        yield "s3://bucket/kd", env, fs
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_the_same_over_s3(s3, machines, kdexp, begin, overrides):
    url, env, fs = s3

    def sent() -> bool:
        fs.invalidate_cache()
        found = fs.glob("bucket/kd/work/*/*/manifest.json")
        return any(p.split("/")[-2] >= "00000003" for p in found)

    moved(kdexp, begin, machines, overrides, url, sent, env)
    fs.invalidate_cache()
    assert not fs.glob("bucket/kd/work/*/*/manifest.json")
    again = kdexp([*overrides, *SLOW_TRAINING, f"runtime.remote={url}"], cwd=machines[0], env=env)
    assert again.returncode == 0 and results(machines[0], "adhoc") == results(machines[1], "adhoc")
    test_a_study_is_divided_between_machines((*machines[:2], url), kdexp, overrides)
    a, b, remote = stores((machines[0] / "x", machines[1] / "x", url), shared())
    a.build(shared(), write, quiet)
    (path,) = fs.glob(f"bucket/kd/store/{shared().key}/*/part/data.txt")
    fs.pipe_file(path, b"weightz")
    assert b.build(shared(), write, quiet)[1] is False
    assert RemoteStore(url).pull_stage(shared().key, machines[0] / "again")["summary"] == {"score": 1.0}
    run = SharedRun(remote, Path("multirun/study/run"))
    run.ask_to_stop()
    assert run.asked_to_stop()
    run.let_run()
    run.let_run()  # once more does no harm
    assert not run.asked_to_stop()


@pytest.mark.slow
def test_an_s3_that_cannot_be_used_is_one_sentence(s3, kdexp, overrides, tmp_path):
    url, env, _ = s3
    for change, wrong in (({}, "s3://nowhere/kd"), ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, url)):
        began = time.monotonic()
        done = kdexp([*overrides, f"runtime.remote={wrong}"], env={**env, **change})
        assert done.returncode == 2 and f"runtime.remote={wrong}: " in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and time.monotonic() - began < 60
        assert not (tmp_path / "multirun").exists()
