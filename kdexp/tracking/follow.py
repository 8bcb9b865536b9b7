"""Live numbers: a process beside a study, or beside a run that is alone, which sends what their files have gained.

Why a process and not a thread: MLflow's import takes seconds of a core and some hundred megabytes, and a server that
hangs, or drips a byte a second, holds a call that no thread can be talked out of. A process can be left behind, and may
be killed at any moment, because the store itself says how far it is (:mod:`kdexp.tracking.view`). It reads its job from
its standard input, and takes the end of that for the end of whoever started it, however that came about.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdexp.common.files import read_note
from kdexp.common.redact import learn, public
from kdexp.tracking import summary
from kdexp.tracking.files import MARKER, write_marker
from kdexp.tracking.mlflow_store import Store, create, prepare, problems, resolve
from kdexp.tracking.sync import Stores, is_behind, run_folders, send

log = logging.getLogger("kdexp.tracking")

FOLLOWED = ".tracked"
"""In a study's folder: locked while a process of the study has its runs followed, so that they need not do it."""
LAST_S = 60.0
"""Seconds that a follower may take for its last look before the system ends it."""
SUMMARY_S = 60.0
"""Seconds between two looks at a study as a whole while its runs go on."""
PACKAGE = Path(__file__).resolve().parents[2]


class Follower:
    """Has a study's runs (or one) shown while they go on; a process of its own does the work.

    Args:
        study_dir: ``multirun/<study>``.
        settings: of ``conf/tracking``: ``uri``, ``every_s``, ``timeout_s``.
        run: name of the only run to show; None = all of the study.
    """

    def __init__(self, study_dir: Path, settings: dict[str, Any], run: str | None = None) -> None:
        self.began = time.time()
        self.job: dict[str, Any] = {"study_dir": str(study_dir), "run": run, "uri": resolve(str(settings["uri"]))}
        self.job["last_s"] = LAST_S
        self.job |= {key: float(settings[key]) for key in ("every_s", "timeout_s")}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-c", "from kdexp.tracking.follow import main; main()"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # it may outlive its parent, whose output others wait for
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent, which then closes this one's input
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self.job).encode() + b"\n")  # not an argument: the address may hold a password
        process.stdin.flush()
        return process

    def close(self, wait_s: float) -> str:
        """Have the last numbers shown; returns why the store lacks something after ``wait_s`` seconds, '' if nothing.

        A process that is not done by then goes on alone, for :data:`LAST_S` seconds at most.
        """
        with contextlib.suppress(OSError):  # somebody killed it
            if self.process.poll() is not None:
                self.process = self._start()
            assert self.process.stdin is not None
            self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_s)
        return self._lacking(f"not finished within {wait_s:g} s")

    def _lacking(self, otherwise: str) -> str:
        for folder in _folders(self.job):
            note = read_note(folder / MARKER)
            if note.get("state") != "behind":
                note = {"state": "behind", "error": otherwise, "uri": public(self.job["uri"])}
                write_marker(folder, experiment=folder.parent.name, **note)
            return str(note["error"])
        return ""


@contextmanager
def following(study_dir: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Make the store ready, have a study's runs shown meanwhile, and complete it after the last.

    Nothing here ends a study or holds its runs up: they start while the store is made, however long a busy machine
    takes for that, and are shown once it is there. What could not be shown is one warning.

    Args:
        study_dir: ``multirun/<study>``.
        settings: of ``conf/tracking``.
    """
    wrong = problems(settings)
    if wrong:
        log.warning("warning: tracking: %s; runs are kept in their folders only", "; ".join(wrong))
    if wrong or not settings.get("enabled"):
        yield
        return
    from filelock import FileLock, Timeout

    stop = threading.Event()
    making = threading.Thread(target=prepare, args=(str(settings["uri"]), stop), daemon=True)
    making.start()
    study_dir.mkdir(parents=True, exist_ok=True)
    follower, wait_s = Follower(study_dir, settings), float(settings["timeout_s"])
    with contextlib.ExitStack() as held:
        with contextlib.suppress(Timeout):  # another command of the same study has it; sending twice does no harm
            held.enter_context(FileLock(study_dir / FOLLOWED, timeout=1.0))
        try:
            yield
            wait_s = LAST_S  # tables that are made right afterwards shall see everything; who was stopped waits less
            making.join()
        finally:
            stop.set()
            making.join()
            why = follower.close(wait_s)
            if why:
                log.warning(
                    "warning: tracking is behind (%s); python -m kdexp.tracking sync root=%s study=%s",
                    why,
                    study_dir.parent,
                    study_dir.name,
                )


def _folders(job: dict[str, Any]) -> Iterator[Path]:
    """Those of a job's folders that the store does not show in full, by their own notes."""
    study_dir = Path(job["study_dir"])
    folders = [study_dir / job["run"]] if job["run"] else run_folders(study_dir.parent, study_dir.name)
    return (folder for folder in folders if is_behind(folder, public(job["uri"])))


def _summarise(job: dict[str, Any], stores: Stores) -> None:
    """Show the study as a whole; what the store refuses now is said again at the next look, or by ``tracking sync``."""
    study_dir = Path(job["study_dir"])
    store = stores.get((job["uri"], study_dir.name))
    if job["run"] is None and isinstance(store, Store):
        with contextlib.suppress(Exception):
            summary.show(store, study_dir, run_folders(study_dir.parent, study_dir.name))


def main() -> None:
    """The follower's process: look every ``every_s`` seconds, and once more when the input has ended.

    A store that is still being made is waited for; only then do the seconds of the last look count.
    """
    job = json.loads(sys.stdin.readline())
    learn(job["uri"])
    ended, made = threading.Event(), threading.Event()

    def listen() -> None:
        sys.stdin.read()
        made.wait()
        signal.alarm(math.ceil(job["last_s"]))  # the system's: it also ends a process whose server hangs
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    with contextlib.suppress(Exception):  # sending notes why
        create(job["uri"])
    made.set()
    stores: Stores = {}
    is_last, told = False, time.monotonic()
    while not is_last:
        is_last = ended.is_set()
        for folder in _folders(job):
            send(folder, job["uri"], stores, job["timeout_s"])
        if is_last or time.monotonic() - told >= SUMMARY_S:
            _summarise(job, stores)
            told = time.monotonic()
        # A store that failed is looked up anew the next time: it may be back, or be another one.
        stores = stores if all(isinstance(store, Store) for store in stores.values()) else {}
        if not is_last:
            ended.wait(job["every_s"])
