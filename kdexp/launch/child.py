"""The process of one run, or of a cohort, wherever it is: its one entry, and how it hears that it shall stop.

``local`` forks a process that calls :func:`work`; a task of Ray starts one (:func:`in_process`, the order as JSON on
stdin); submitit calls the order itself, in the process that Slurm gave it.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from kdexp.common.redact import clean_terminal, print_traceback
from kdexp.common.status import read_status
from kdexp.run.spec import RunSpec
from kdexp.store.remote import of
from kdexp.store.shared_run import SharedRun

INTERRUPTED = 130
"""Exit code of a run that was asked to stop and has saved itself."""
GRACE_S = 20.0
"""How long a run may take to save itself when it is told to stop."""
STOP = ".stop"
"""A file of this name in a run's folder asks the run to save itself and leave; signals do not cross machines."""
WATCH_S = 1.0
ASK_S = 5.0
"""Seconds between two questions to object storage."""


@dataclass(frozen=True)
class Order:
    """One run, or a cohort, as a function without arguments; plain values, so that it travels as JSON too.

    Attributes:
        configs: of each run the configuration that was checked, as plain values.
        overrides: of each run, for its records.
        folders: of each run, as seen from ``cwd``.
        env: environment of the process (threads, its GPU).
        cwd: the directory that ``multirun/`` counts from.
        far: the launcher may be on another machine and asks by :data:`STOP`, not by a signal.
    """

    configs: list[dict[str, Any]]
    overrides: list[list[str]]
    folders: list[str]
    env: dict[str, str]
    cwd: str = "."
    far: bool = False

    @classmethod
    def of(cls, specs: Sequence[RunSpec], env: dict[str, str], cwd: str = ".", far: bool = False) -> Order:
        """Make the order of a run, or of several that are carried out together."""
        configs, overrides = [spec.config.model_dump() for spec in specs], [list(spec.overrides) for spec in specs]
        return cls(configs, overrides, [str(spec.run_dir) for spec in specs], env, cwd, far)

    @property
    def log(self) -> Path:
        """The log that gets what the process itself prints: the first run's."""
        return Path(self.cwd) / self.folders[0] / "run.log"

    def __call__(self) -> int:
        """Carry the runs out in this process; returns 0 all finished, 130 one is interrupted, else 1."""
        os.chdir(self.cwd)
        os.environ.update(self.env)
        from kdexp.run import cohort, spec  # not before: numerical libraries read their threads when loaded

        runs = [spec.restore(*told) for told in zip(self.configs, self.overrides, strict=True)]
        try:
            for run in runs if self.far else ():
                watched = run.run_dir / STOP, SharedRun(of(run.config), run.run_dir)
                threading.Thread(target=_watch, args=watched, daemon=True).start()
            ends = cohort.carry_out(runs)
        except KeyboardInterrupt as error:  # before anything could listen
            ends = [error for _ in runs]
        codes = {self._code(run, error) for run, error in zip(runs, ends, strict=True) if error is not None}
        if INTERRUPTED not in codes:
            return max(codes, default=0)
        print("interrupted", file=sys.stderr)
        handed_on = any(read_status(run.run_dir).get("signal") == "SIGUSR2" for run in runs)
        if handed_on and not any((run.run_dir / STOP).exists() for run in runs):
            _hand_on_to_submitit()
        return INTERRUPTED

    def _code(self, run: RunSpec, error: BaseException) -> int:
        """Return the exit code that speaks for a run that did not finish; one that failed is told in the log."""
        if isinstance(error, KeyboardInterrupt) or read_status(run.run_dir).get("state") == "interrupted":
            return INTERRUPTED
        print_traceback(error)
        return 1

    def checkpoint(self) -> Any:
        """Say what is to be called when the job comes back; submitit asks. What has failed is not tried again."""
        import submitit

        again = [n for n, folder in enumerate(self.folders) if read_status(Path(folder)).get("state") != "failed"]
        order = replace(
            self,
            configs=[self.configs[n] for n in again],
            overrides=[self.overrides[n] for n in again],
            folders=[self.folders[n] for n in again],
        )
        return submitit.helpers.DelayedSubmission(order)


def work(order: Order) -> None:
    """Be the process of one run, or of a cohort, and leave with its exit code.

    Everything that this process prints goes to the first run's log. It stops on SIGTERM, and when its launcher is gone.
    """
    _redirect(order.log)
    clean_terminal()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the launcher decides
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_follow_parent, daemon=True).start()
    code = 1
    try:
        code = order()
    except BaseException as error:
        print_traceback(error)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def in_process(order: Order) -> int:
    """Carry an order out in a process of its own, wait for it, and return its exit code; for a worker of Ray."""
    order = replace(order, cwd=str(workdir(order.cwd, order.configs[0]).absolute()))
    log = order.log
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "kdexp.launch.child"]
    env = {**os.environ, **order.env}
    with log.open("ab") as out:  # what it says before it can redirect itself belongs there too
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=env, cwd=order.cwd)
    try:
        child.communicate(json.dumps(asdict(order)).encode())
        return child.returncode
    finally:
        if child.poll() is None:
            child.terminate()


def workdir(asked: str, config: dict[str, Any]) -> Path:
    """Return the directory that ``multirun/`` counts from on this machine.

    Args:
        asked: the one of the machine that sent the order, or the launcher's ``workdir``.
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
    local = Path(tempfile.gettempdir()) / f"kdexp-{getpass.getuser()}" / asked.strip("/").replace("/", "-")
    local.mkdir(parents=True, exist_ok=True)
    return local


def _redirect(log: Path) -> None:
    """Send this process's output, that of C libraries included, to the end of the run's log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _interrupt(_signal: int, _frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _follow_parent() -> None:
    """Stop this run when the process that started it is gone, however it went: a killed one can send no signal."""
    launcher = multiprocessing.parent_process()
    if launcher is not None:  # forked by the fork server, which lives on: only this pipe tells
        wait([launcher.sentinel])
    else:
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(WATCH_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _watch(stop: Path, shared: SharedRun) -> None:
    """End this process when its run shall stop: by a file on a common disk, or an object in the common storage."""
    asked = time.monotonic()
    while not stop.exists():
        time.sleep(WATCH_S)
        if time.monotonic() - asked >= ASK_S:
            with contextlib.suppress(Exception):  # storage that is away now may answer the next time
                if shared.asked_to_stop():
                    break
            asked = time.monotonic()
    os.kill(os.getpid(), signal.SIGTERM)


def _hand_on_to_submitit() -> None:
    """Send the signal on, now that the run is saved: submitit's own handler puts the job into the queue again."""
    if signal.getsignal(signal.SIGUSR2) not in (signal.SIG_DFL, signal.SIG_IGN, None):
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(WATCH_S)


if __name__ == "__main__":
    work(Order(**json.loads(sys.stdin.read())))
