"""The tracker of one running run: writes its numbers to its file, and lets a background thread show them in MLflow."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

from kdexp.common.redact import without_passwords
from kdexp.tracking.files import METRICS, SYSTEM, Facts, MetricsFile, write_marker
from kdexp.tracking.mlflow_store import problems, public, resolve
from kdexp.tracking.system import Sampler

if TYPE_CHECKING:
    from pathlib import Path

    from kdexp.tracking.view import View

log = logging.getLogger("kdexp.tracking")

DEFAULTS: dict[str, Any] = {
    "enabled": True,
    "uri": "sqlite:///multirun/mlflow.db",
    "every_s": 10.0,
    "timeout_s": 5.0,
    "system_metrics": True,
    "artifacts": True,
}
LOCK = ".tracking.lock"  # in the run's folder: held by whoever feeds the store from it
LONGEST_PAUSE_S = 60.0  # between attempts at a store that is away


class Tracker:
    """Numbers of one run: first into ``metrics.jsonl``, then, by a thread and when it can be, into the store.

    Make it with :meth:`open` in the process that trains (after a fork, never before). No method raises because of the
    store, and none waits for it, except :meth:`close`, for at most ``tracking.timeout_s`` seconds.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any], study: str, name: str) -> None:
        self.settings = {**DEFAULTS, **(config.get("tracking") or {})}
        self.run_dir, self.config, self.study, self.name = run_dir, config, study, name
        self._file = MetricsFile(run_dir / METRICS)
        self._status: str | None = None
        self._wake, self._closing = threading.Event(), threading.Event()
        self._mark = threading.Lock()
        self._warned = self._shown = self._begun = False
        self._view: View | None = None
        self._thread: threading.Thread | None = None
        self._sampler: Sampler | None = None

    @classmethod
    def open(cls, run_dir: Path, config: dict[str, Any], *, study: str, name: str) -> Tracker:
        """Start tracking a run, or go on tracking a resumed one: the same file and the same MLflow run.

        Args:
            run_dir: the run's folder; ``multirun/<study>/<name>``.
            config: the resolved config; ``config["tracking"]`` holds the settings, the rest becomes params and tags.
            study: name of the experiment and of the parent run.
            name: name of the run.

        Raises:
            OSError: the run's own ``metrics.jsonl`` cannot be written. Trouble with the store is one warning.
        """
        tracker = cls(run_dir, config, study, name)
        if tracker.settings["system_metrics"]:
            tracker._sample()
        if tracker.settings["enabled"]:
            wrong = problems(tracker.settings)
            if wrong:
                log.warning("tracking: %s; this run is kept in %s only", "; ".join(wrong), tracker._file.path)
            else:
                tracker._thread = threading.Thread(target=tracker._serve, name="kdexp-tracking", daemon=True)
                tracker._thread.start()
        return tracker

    def _sample(self) -> None:
        count = self._file.system_samples()

        def write(values: dict[str, float]) -> None:
            nonlocal count
            count += 1
            self._file.append(SYSTEM, count, 0, values)

        self._sampler = Sampler(write)

    def log(self, stage: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Append one line to ``metrics.jsonl``; tens of microseconds, no network.

        Args:
            stage: name of the stage, e.g. ``distill.prediction``; becomes the prefix of the metrics' names.
            step: optimiser steps done in this stage.
            epoch: epoch of this stage.
            values: numbers by name, e.g. ``{"train/loss": 0.3}``; anything that ``float`` takes.

        Raises:
            OSError: the file cannot be written (full disk).
        """
        self._file.append(stage, step, epoch, values)
        if not self._begun:
            self._begun = True
            self._wake.set()  # the first number wakes the thread: MLflow's import waits until the training is under way

    def flush(self) -> None:
        """Ask for the numbers so far to be shown soon (end of an epoch); returns at once."""
        self._wake.set()

    def close(self, status: str) -> None:
        """Show the rest and the end of the run. Call it after ``result.json`` and ``status.json`` were written.

        Returns within ``tracking.timeout_s`` seconds (plus one for a last sample of the machine's load). What could
        not be shown by then is marked in ``tracking.json`` and made good by ``python -m kdexp.tracking sync``.

        Args:
            status: ``finished``, ``failed`` or ``interrupted``.
        """
        if self._status is not None:
            return
        if self._sampler is not None:
            self._sampler.stop()
        with contextlib.suppress(OSError):  # every line was handed to the system long ago
            self._file.close()
        self._status = status
        self._closing.set()
        self._wake.set()
        if self._thread is None:
            return
        self._thread.join(self.settings["timeout_s"])
        if self._thread.is_alive():
            self._behind(f"not finished within timeout_s={self.settings['timeout_s']}")

    def _serve(self) -> None:
        """The thread: feed every ``every_s`` seconds, more rarely while the store is away, once more at the end."""
        from filelock import FileLock

        self._wake.wait()
        failures, every = 0, float(self.settings["every_s"])
        lock = FileLock(self.run_dir / LOCK, timeout=self.settings["timeout_s"], thread_local=False)
        try:
            while True:
                self._wake.clear()
                closing = self._status is not None
                try:
                    if not lock.is_locked:
                        lock.acquire()
                    self._feed()
                    failures = 0
                except Exception as problem:
                    failures += 1
                    self._view = None  # look everything up anew: what arrived, and whether it still is the same store
                    self._behind(f"{type(problem).__name__}: {problem}")
                if closing:
                    return
                pause = min(every * 2**failures, max(LONGEST_PAUSE_S, every))
                self._closing.wait(min(1.0, pause))
                (self._closing if failures else self._wake).wait(max(0.0, pause - 1.0))
        finally:
            lock.release()

    def _feed(self) -> None:
        final = self._status
        view = self._view = self._view or self._attach()
        view.feed()
        if final is not None:
            view.facts = self._facts(final)
            view.finish()
        with self._mark:
            view.mark()
            self._shown = final is not None

    def _facts(self, state: str) -> Facts:
        return Facts.read(self.run_dir, self.config, study=self.study, name=self.name, known=state)

    def _attach(self) -> View:
        from kdexp.tracking.mlflow_store import Store
        from kdexp.tracking.view import View

        store = Store(resolve(self.settings["uri"]), self.settings["timeout_s"])
        view = View(store, self._facts("running"), artifacts=bool(self.settings["artifacts"]))
        view.attach()
        if self._warned:
            log.info("tracking: %s takes numbers again", public(store.uri))
            self._warned = False
        return view

    def _behind(self, why: str) -> None:
        """Say once, and write down, that the store lacks something."""
        uri, why = public(resolve(self.settings["uri"])), without_passwords(why)
        with self._mark:
            if self._shown:
                return  # the thread was done a moment before its time was up
            try:
                write_marker(self.run_dir, uri=uri, experiment=self.study, state="behind", error=why)
            except OSError as problem:
                why = f"{why}; {problem}"
        if not self._warned:
            self._warned = True
            log.warning(
                "tracking: %s does not take this run's numbers now (%s). The run goes on, everything is in %s; "
                "show it later with: python -m kdexp.tracking sync root=%s study=%s",
                uri,
                " ".join(why.split())[:300],
                self._file.path,
                self.run_dir.parent.parent,
                self.study,
            )
