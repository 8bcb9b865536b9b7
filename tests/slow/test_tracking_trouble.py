"""A tracking server that is down, hangs, drips, breaks or dies while a study goes on: a warning, and sent later.

``KDEXP_TROUBLES`` names those that are tried (all unless it is set), such as ``down,drips``.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kdexp.tracking.sync import sync
from tests.slow.studies import Study
from tests.test_runs import toy
from tests.tracking.test_outages import bad_server, drips, refuses, server

GRID = ["-m", "objective=kd", "seed=1,2", "hydra.launcher.slots=2", "study=eight", "tracking.timeout_s=2"]
PATIENCE = 120
"""Seconds that trouble may cost a study more than none."""


def _hangs(connection: Any) -> None:
    connection.recv(65536)
    time.sleep(600)


@contextmanager
def _down(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"  # bound, and nobody listens


@contextmanager
def _dies(folder: Path) -> Iterator[str]:
    """A whole server, until the first run has reported something."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dead = threading.Event()

    def live() -> None:
        with server(f"sqlite:///{folder / 'dying.db'}", port, folder / "artifacts"):
            ready.set()
            end = time.monotonic() + 200
            while not dead.is_set() and time.monotonic() < end:
                if any(path.stat().st_size for path in folder.glob("study/multirun/*/*/metrics.jsonl")):
                    return
                time.sleep(0.1)

    ready, thread = threading.Event(), threading.Thread(target=live, daemon=True)
    thread.start()
    assert ready.wait(120)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        dead.set()
        thread.join(30)


def _bad(answer: Callable[[Any], None]) -> Callable[[Path], Any]:
    return lambda folder: bad_server(answer)


TROUBLES: dict[str, Callable[[Path], Any]] = {
    "down": _down, "hangs": _bad(_hangs), "drips": _bad(drips), "breaks": _bad(refuses), "dies": _dies,
}  # fmt: skip
CHOSEN = os.environ.get("KDEXP_TROUBLES", ",".join(TROUBLES)).split(",")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_server_in_trouble_costs_a_study_a_warning(tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path):
    words = [*GRID, *(word for word in toy(tiny_bert_dir, tiny_csv_task) if word != "tracking=off")]
    whole = Study(tmp_path / "whole", words)
    began = time.monotonic()
    code, said = whole.finish()
    assert code == 0, said
    took, expected = time.monotonic() - began, whole.facts()
    assert len(expected) == 2
    for name in CHOSEN:
        folder = tmp_path / name
        study = Study(folder / "study", words)
        with TROUBLES[name](folder) as uri:
            study.words = [*words, f"tracking.uri={uri}"]
            began = time.monotonic()
            code, said = study.finish()
            more = time.monotonic() - began - took
        assert code == 0 and "Traceback" not in said, (name, said)
        assert study.facts() == expected, f"{name}: other results"
        assert more < PATIENCE, f"{name}: {more:.0f} s more"
        assert "kdexp.tracking sync" in said or "kdexp tracking sync" in said, f"{name} was not said: {said}"
        store = f"sqlite:///{folder / 'later.db'}"
        assert sync(study.folder / "multirun", uri=store, say=print) == 0, name
        print(f"{name}: {more:.0f} s more than {took:.0f} s", flush=True)
