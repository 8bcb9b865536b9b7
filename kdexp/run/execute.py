"""A run carried out in this process: its lock, its status, its log, its result."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from kdexp.common import files, redact, results, status
from kdexp.common.files import DiskFull, Interrupted
from kdexp.common.problems import ConfigError
from kdexp.common.stop import Stop
from kdexp.common.turns import Turns
from kdexp.run import stages
from kdexp.run.spec import RunSpec
from kdexp.run.stored import finished, stale
from kdexp.store import shared_run
from kdexp.tracking import Tracker

log = logging.getLogger("kdexp")
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""Writes the same values; that of libyaml takes a tenth of the time, where it is there."""
_SPEAKING: ContextVar[Path | None] = ContextVar("run", default=None)
"""The folder of the run whose thread this is."""


def execute(spec: RunSpec, stop: Stop | None = None, together: Turns | None = None) -> dict[str, Any]:
    """Carry one run out in this process and return its result; a finished run returns the stored one.

    The spec has been checked. What can have changed since then (files, weights, the network) speaks for itself.

    Args:
        spec: the run.
        stop: becomes true when the run shall end; None = it listens to signals itself.
        together: turns of several runs of this process (:mod:`kdexp.run.cohort`), of which this is one.

    Raises:
        ConfigError: a finished run whose data or teacher have other contents now; nothing was written.
        Exception: whatever stopped the run; its folder says so.
    """
    redact.learn(spec.config.model_dump())
    with shared_run.run(spec.config, spec.run_dir) as pull:
        done = None if status.damage(spec.run_dir) else _known(spec)
        return done if done is not None else _locked(spec, pull, stop, together)


def _known(spec: RunSpec) -> dict[str, Any] | None:
    """Return the result of a run that is finished and still holds.

    Raises:
        Damaged: its result is not what was written.
    """
    done = finished(spec)
    changed = stale(spec, done) if done is not None else None
    if changed:
        raise ConfigError([changed])
    return done


def _locked(spec: RunSpec, pull: Callable[[], None], stop: Stop | None, together: Turns | None) -> dict[str, Any]:
    """Carry a run out while no other process can, unless another machine has finished it."""
    spec.run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(spec.run_dir / ".lock")
    try:
        lock.acquire(timeout=1)
    except Timeout as error:
        raise RuntimeError(f"{spec.run_dir} is being run by another process: wait for it, or stop it.") from error
    try:
        for sentence in status.mend(spec.run_dir):
            log.warning(sentence)
        pull()
        return _known(spec) or _execute(spec, stop, together)
    finally:
        lock.release()


def _execute(spec: RunSpec, told: Stop | None, together: Turns | None) -> dict[str, Any]:
    run_dir = spec.run_dir
    before = status.read_status(run_dir)
    facts: dict[str, Any] = {
        "state": "running", "pid": os.getpid(), "host": socket.gethostname(), "started": _now(), "updated": _now(),
        "attempt": int(before.get("attempt", 0)) + 1, "error": None, "cohort": 1 if together is None else len(together),
    }  # fmt: skip

    def mark(state: str, error: str | None = None) -> None:
        shown = None if error is None else redact.outward(error)
        status.write_status(run_dir, {**facts, "state": state, "updated": _now(), "error": shown})

    mark("running")
    _write_hydra(spec)
    stop = told or Stop()
    with _logging(run_dir) as run_log, stop.listening() if told is None else nullcontext():
        tracker = Tracker(run_dir, spec.config.tracking.model_dump())
        try:
            result = redact.public(stages.carry_out(spec, stop, tracker.log, together))
            results.write(run_dir, result)
            mark("finished")
            tracker.close()
            return result
        except (Interrupted, KeyboardInterrupt) as error:
            log.warning("interrupted: %s", error or "Ctrl-C")
            facts["signal"] = stop.asked or None  # which one: a cluster's launcher queues the job again after SIGUSR2
            with suppress(DiskFull):  # the lock tells as much: a run that says running and holds none is interrupted
                mark("interrupted", str(error) or "Ctrl-C")
            tracker.close()
            raise
        except BaseException as error:
            log.error("failed: %s: %s", type(error).__name__, error)
            if not isinstance(error, ValueError | DiskFull):
                run_log.traceback(error)
            with suppress(DiskFull):
                mark("failed", f"{type(error).__name__}: {error}")
            tracker.close()
            raise


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def _write_hydra(spec: RunSpec) -> None:
    """Keep the resolved configuration and the command line, as Hydra would."""
    for name, value in (("config", spec.config.model_dump()), ("overrides", list(spec.overrides))):
        text = yaml.dump(redact.public(value), Dumper=DUMPER, sort_keys=False)
        files.write_text(spec.run_dir / ".hydra" / f"{name}.yaml", text)


class _RunLog(logging.FileHandler):
    """A run's own log; a disk that is full shall not fill the terminal with a traceback a line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: what stopped the run is said elsewhere."""

    def traceback(self, error: BaseException) -> None:
        """Write down where in the program a run failed, for whoever looks into its log; people get the sentence."""
        self.handle(
            log.makeRecord(
                log.name, logging.ERROR, "", 0, "where it failed:", (), (type(error), error, error.__traceback__)
            )
        )


@contextmanager
def _logging(run_dir: Path) -> Iterator[_RunLog]:
    """Send this process's log to the run's own file while the run lasts; of a cohort, what the run itself says."""
    handler = _RunLog(run_dir / "run.log")
    speaking = _SPEAKING.set(run_dir)
    handler.addFilter(lambda record: _SPEAKING.get() in (None, run_dir))  # None: a thread that serves all of them
    handler.setFormatter(redact.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        log.removeHandler(handler)
        handler.close()
        _SPEAKING.reset(speaking)
