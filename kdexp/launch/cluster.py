"""What happens to a run on another machine: the same bookkeeping as at home, on a folder that all machines see.

Submitit calls :class:`Remote` in the process that Slurm gave it; Ray starts it as a process of its own
(``python -m kdexp.launch.cluster``, the job as JSON on stdin).
"""

from __future__ import annotations

import contextlib
import getpass
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from kdexp.common import files
from kdexp.launch.child import GRACE_S, INTERRUPTED
from kdexp.store.remote import of
from kdexp.store.shared_run import SharedRun

STOP = ".stop"
"""A file of this name in a run's folder asks the run to save itself and leave; signals do not cross machines."""
WATCH_S = 1.0
ASK_S = 5.0
"""Seconds between two questions to object storage."""


class Remote:
    """One run as a function without arguments; returns its exit code.

    Args:
        runs: name of the module with ``execute``.
        config: the resolved configuration.
        overrides: for the run's records.
        folder: the run's folder, as seen from ``cwd``.
        env: environment of the run (threads).
        cwd: the directory that ``multirun/`` counts from.
    """

    def __init__(
        self, runs: str, config: dict[str, Any], overrides: list[str], folder: str, env: dict[str, str], cwd: str
    ):
        self.runs, self.config, self.overrides = runs, config, overrides
        self.folder, self.env, self.cwd = folder, env, cwd

    def __call__(self) -> int:
        """Carry the run out: 0 finished, 1 failed, 130 interrupted."""
        os.chdir(self.cwd)
        os.environ.update(self.env)
        stop = Path(self.folder) / STOP
        threading.Thread(target=_watch, args=(stop, self.config), daemon=True).start()
        try:
            importlib.import_module(self.runs).execute(self.config, self.overrides)
            return 0
        except BaseException as error:
            if isinstance(error, SystemExit):
                raise
            status = files.read_json(Path(self.folder) / "status.json") or {}
            if status.get("state") == "interrupted" or isinstance(error, KeyboardInterrupt):
                if status.get("signal") == "SIGUSR2" and not stop.exists():
                    self.requeue()
                return INTERRUPTED
            traceback.print_exc()
            return 1

    def requeue(self) -> None:
        """Hand the signal on, now that the run is saved: submitit's own handler puts the job into the queue again."""
        if signal.getsignal(signal.SIGUSR2) not in (signal.SIG_DFL, signal.SIG_IGN, None):
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(WATCH_S)

    def checkpoint(self) -> Any:
        """Say what is to be called when the job comes back; submitit asks."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _watch(stop: Path, config: dict[str, Any]) -> None:
    """End this process when its run shall stop: by a file on a common disk, or an object in the common storage."""
    shared, asked = SharedRun(of(config), stop.parent), time.monotonic()
    while not stop.exists():
        time.sleep(WATCH_S)
        if time.monotonic() - asked >= ASK_S:
            with contextlib.suppress(Exception):  # storage that is away now may answer the next time
                if shared.asked_to_stop():
                    break
            asked = time.monotonic()
    os.kill(os.getpid(), signal.SIGTERM)


def workdir(asked: str, config: dict[str, Any]) -> Path:
    """Return the directory that ``multirun/`` counts from on this machine.

    Args:
        asked: the one of the machine that sent the job, or the launcher's ``workdir``.
        config: with ``runtime.remote`` there need be no common disk: a machine without that directory takes one of its
            own, always the same.

    Raises:
        FileNotFoundError: it is not here, and there is no other way to hand results back.
    """
    if Path(asked).is_dir():
        return Path(asked)
    if not (config.get("runtime") or {}).get("remote"):
        raise FileNotFoundError(
            f"{asked} is no directory on {socket.gethostname()}: give all machines one disk "
            "(hydra.launcher.workdir=FOLDER names the place), or a common storage (runtime.remote=s3://BUCKET/PREFIX)."
        )
    own = Path(tempfile.gettempdir()) / f"kdexp-{getpass.getuser()}" / asked.strip("/").replace("/", "-")
    own.mkdir(parents=True, exist_ok=True)
    return own


def in_child(job: dict[str, Any]) -> int:
    """Carry a job out in a process of its own and wait for it; its output goes to the run's log.

    Args:
        job: the arguments of :class:`Remote`.
    """
    job = {**job, "cwd": str(workdir(job["cwd"], job["config"]))}
    log = Path(job["cwd"]) / job["folder"] / "run.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, **job["env"]}
    with log.open("ab") as out:
        command = [sys.executable, "-m", "kdexp.launch.cluster"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=env, cwd=job["cwd"])
    try:
        child.communicate(json.dumps(job).encode())
        return child.returncode
    finally:
        if child.poll() is None:
            child.terminate()


def main() -> int:
    """Read a job from stdin and carry it out; leave when the process that started this one is gone."""
    job = json.loads(sys.stdin.read())
    parent = os.getppid()

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os.kill(os.getpid(), signal.SIGKILL)

    def stop(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=follow, daemon=True).start()
    return Remote(**job)()


if __name__ == "__main__":
    sys.exit(main())
