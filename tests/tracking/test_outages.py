"""Real trouble: fresh stores, killed processes, dead and silent servers, locked files. Nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kdexp.tracking import follow
from kdexp.tracking.files import lines
from kdexp.tracking.sync import sync
from kdexp.tracking.ui import command, environment

REPOSITORY = Path(__file__).resolve().parents[2]
WRITER = """
import json, os, socket, sys, time
from pathlib import Path
from kdexp.common.status import write_status
from kdexp.tracking import Tracker
folder, config, start, end, pause = json.loads(sys.argv[1])
folder = Path(folder)
write_status(folder, {"state": "running", "pid": os.getpid(), "host": socket.gethostname()})
tracker = Tracker(folder, config["tracking"])
for step in range(start, end):
    tracker.log("s", step, 0, {"loss": 1.0 / (step + 1), "accuracy": 0.5})
    time.sleep(pause)
write_status(folder, {"state": "failed"})
tracker.close()
"""


def writer(folder, config, start=0, end=200, pause=0.0):
    """A process of its own that tracks a run."""
    arguments = json.dumps([str(folder), config, start, end, pause])
    return subprocess.Popen([sys.executable, "-c", WRITER, arguments], cwd=REPOSITORY)


def recorded(folder):
    """Distinct (metric, step) of a run's own file."""
    return {(p.name, p.step) for _, points in lines(folder / "metrics.jsonl") for p in points or ()}


def marker(folder):
    return json.loads((folder / "tracking.json").read_text())


def test_eight_processes_on_a_fresh_store(run_dir, config, shown):
    Path(shown.path).unlink()
    folders = [run_dir.with_name(f"run{i}") for i in range(8)]
    started = [writer(folder, config) for folder in folders]
    assert [process.wait(120) for process in started] == [0] * 8
    sync(run_dir.parents[1])  # eight imports on a small machine: one of them may have run out of its time
    assert [marker(folder)["state"] for folder in folders] == ["synced"] * 8
    assert len(shown.runs()) == 8
    assert len(shown.runs("study")) == 1
    assert shown.rows("select count(*) from experiments where name = 'toy'") == [(1,)]
    assert shown.rows("pragma journal_mode") == [("wal",)]
    losses = {k: n for k, n in shown.points().items() if k[0] == "s/loss"}
    assert losses == {("s/loss", step): 8 for step in range(200)}


def test_killed_at_any_moment_nothing_is_lost_or_doubled(run_dir, config, finish, shown):
    config["tracking"]["every_s"] = 0.05
    rng = random.Random(4)
    for start in range(0, 60, 20):  # each attempt repeats steps of the one before
        process = writer(run_dir, config, start, 10_000, 0.004)
        give_up = time.monotonic() + 60
        while not (run_dir / "tracking.json").exists() and time.monotonic() < give_up:
            time.sleep(0.01)
        assert (run_dir / "tracking.json").exists()
        time.sleep(rng.uniform(0.5, 1.5))
        process.kill()
        process.wait()
    assert len(recorded(run_dir)) > 200
    finish(run_dir, "running", config)
    lines_said: list[str] = []
    assert sync(run_dir.parents[1], say=lines_said.append) == 0
    assert shown.points() == dict.fromkeys(recorded(run_dir), 1)
    (run_id,) = shown.runs().values()
    assert shown.status(run_id) == "KILLED"
    give_up = time.monotonic() + 60
    while True:  # the follower of the process that was killed may be sending its last words yet
        assert sync(run_dir.parents[1], say=lines_said.append) == 0
        if "1 still running" not in lines_said[-1] or time.monotonic() > give_up:
            break
        time.sleep(0.2)
    assert shown.points() == dict.fromkeys(recorded(run_dir), 1)
    assert lines_said[-1] == "1 runs: 0 brought up to date, 1 up to date already, 0 still running, 0 behind"


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_killed_between_the_points_and_their_position(run_dir, config, train, finish, shown, offset):
    """The store committed the points, but not (or an older) position: what is sent again is the same rows."""
    tracker = train(run_dir, config, ())
    for step in range(50):
        tracker.log("s", step, 0, {"loss": float("nan") if step % 7 == 0 else 0.1 * step})
    finish(run_dir, config=config)
    tracker.close()
    before = shown.rows("select * from metrics order by key, step, timestamp")
    (run_id,) = shown.runs().values()
    ends = [0, *(end for end, _ in lines(run_dir / "metrics.jsonl"))]
    older = shown.tags(run_id)["kdexp.position"].split(":")[0] + f":{ends[offset * 20]}"
    connection = sqlite3.connect(shown.path)
    with connection:
        connection.execute("update tags set value = ? where key = 'kdexp.position'", [older])
        connection.execute("delete from tags where key = 'kdexp.closed'")
    connection.close()
    assert sync(run_dir.parents[1], say=print) == 0
    assert shown.rows("select * from metrics order by key, step, timestamp") == before
    assert shown.rows("select count(*) from inputs where destination_id = (select run_uuid from runs limit 1)")


def test_a_locked_store_costs_a_run_nothing_but_its_patience(run_dir, config, train, finish, shown):
    config["tracking"]["timeout_s"] = 1
    warm = train(run_dir.with_name("warm"), config, ())
    warm.log("s", 1, 0, {"loss": 1.0})
    warm.close()
    sync(run_dir.parents[1])
    blocker = sqlite3.connect(shown.path, isolation_level=None)
    blocker.execute("begin exclusive")
    try:
        tracker = train(run_dir, config, ())
        began = time.monotonic()
        for step in range(1000):
            tracker.log("s", step, 0, {"loss": 1.0})
        assert time.monotonic() - began < 1
        finish(run_dir, config=config)
        began = time.monotonic()
        tracker.close()
        assert time.monotonic() - began < 2.5
        assert marker(run_dir)["state"] == "behind"
    finally:
        blocker.execute("rollback")
        blocker.close()
    tracker.follower.process.wait(30)  # the follower, left alone, finishes as soon as it can
    assert marker(run_dir)["state"] == "synced"
    assert sync(run_dir.parents[1]) == 0
    ours = {k: n for k, n in shown.points().items() if k[0] == "s/loss" and k[1] != 1}
    assert ours == {("s/loss", step): 1 for step in range(1000) if step != 1}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(uri, port, artifacts):
    """A real ``mlflow server``, ready to answer; gone, with all its processes, when the block is left."""
    import urllib.request

    process = subprocess.Popen(
        command(uri, port, artifacts), env=environment(), start_new_session=True, stdout=-3, stderr=-3
    )
    try:
        give_up = time.monotonic() + 90
        while time.monotonic() < give_up:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_killed_in_mid_run(run_dir, config, train, finish, shown, tmp_path, uri, caplog):
    port = free_port()
    config["tracking"] |= {"uri": f"http://127.0.0.1:{port}", "timeout_s": 3}
    with server(uri, port, tmp_path / "artifacts"):
        tracker = train(run_dir, config, ())
        give_up = time.monotonic() + 60
        for step in range(100):
            tracker.log("s", step, 0, {"loss": 1.0 / (step + 1)})
        while len(shown.points()) < 100 and time.monotonic() < give_up:
            time.sleep(0.1)
        assert len(shown.points()) == 100
    slowest = 0.0
    for step in range(100, 400):
        began = time.monotonic()
        tracker.log("s", step, 0, {"loss": 1.0 / (step + 1)})
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.005)
    assert slowest < 0.5
    finish(run_dir, config=config)
    began = time.monotonic()
    tracker.close()
    assert time.monotonic() - began < 4
    assert marker(run_dir)["state"] == "behind"
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1, "one warning, however often it was tried"
    assert sync(run_dir.parents[1], say=print) == 1, "still down"

    with server(uri, port, tmp_path / "artifacts"):
        said: list[str] = []
        assert sync(run_dir.parents[1], say=said.append) == 0
        counts = shown.points()
        assert {k: n for k, n in counts.items() if k[0] == "s/loss"} == {("s/loss", s): 1 for s in range(400)}
        (run_id,) = shown.runs().values()
        assert shown.status(run_id) == "FINISHED"
        assert shown.tags(run_id)["kdexp.status"] == "finished"
        assert sync(run_dir.parents[1], say=said.append) == 0
        assert shown.points() == counts
        assert "1 up to date already" in said[-1]
    assert list((tmp_path / "artifacts").rglob("result.json"))


@contextlib.contextmanager
def bad_server(answer):
    """A socket whose ``answer(connection)`` is no answer of MLflow's."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=quietly, args=(listening.accept()[0],), daemon=True).start()

        def quietly(connection):
            with contextlib.suppress(OSError), connection:
                answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def drips(connection):
    """A byte now and then: no read ever times out, and no request ever ends."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.2)


def refuses(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")


@pytest.mark.parametrize("answer", [drips, refuses])
def test_a_server_that_answers_badly_costs_a_run_nothing_but_its_patience(
    run_dir, config, train, end, shown, uri, answer
):
    with bad_server(answer) as address:
        config["tracking"] |= {"uri": address, "timeout_s": 1}
        tracker = train(run_dir, config, ())
        began, slowest = time.monotonic(), 0.0
        while time.monotonic() - began < 8:  # long enough for the follower to be in the midst of it
            before = time.monotonic()
            tracker.log("s", round(1e6 * (before - began)), 0, {"loss": 1.0})
            slowest = max(slowest, time.monotonic() - before)
            time.sleep(0.01)
        assert slowest < 0.5
        before = time.monotonic()
        end(tracker, "finished")
        assert time.monotonic() - before < 2.5
        assert marker(run_dir)["state"] == "behind"
        tracker.follower.process.kill()
        tracker.follower.process.wait()
    assert sync(run_dir.parents[1], uri=uri, say=print) == 0
    assert {point for point in shown.points() if point[0] == "s/loss"} == recorded(run_dir)


def test_a_follower_whose_parent_is_gone_ends_though_its_server_hangs(run_dir, config, train, monkeypatch):
    with bad_server(drips) as address:
        config["tracking"] |= {"uri": address, "timeout_s": 1}
        monkeypatch.setattr(follow, "LAST_S", 3.0)
        tracker = train(run_dir, config)
        process = tracker.follower.process
        time.sleep(8)  # it hangs in a request by now
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(90) == -signal.SIGALRM


def test_a_server_that_never_answers(run_dir, config, train, finish, caplog):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        config["tracking"] |= {"uri": f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}", "timeout_s": 1}
        tracker = train(run_dir, config, ())
        tracker.log("s", 1, 0, {"loss": 1.0})
        time.sleep(0.5)
        began = time.monotonic()
        tracker.close()
        assert time.monotonic() - began < 2
    assert marker(run_dir)["state"] == "behind"
    assert "secret" not in caplog.text + json.dumps(marker(run_dir))
