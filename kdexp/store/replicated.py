"""A store with object storage behind it: asks there for what is missing here, and sends what others will need."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kdexp.common import files
from kdexp.common.problems import ConfigError
from kdexp.config.schema import Config
from kdexp.store.remote import Mirror, of
from kdexp.store.stage import Stage
from kdexp.store.store import Finished, Store

log = logging.getLogger("kdexp")
MARK = "pushed.json"
"""In a work folder: the name of the checkpoint that was sent or fetched last."""
HOME = ("checkpoint.new", "checkpoint.old", "best.safetensors.new", "holder.json", MARK)
"""What of a work folder is never sent."""


class Mirrored(Store):
    """A store that shares its stages through a mirror.

    Sending is a service to others: while a run is under way, a storage that is away costs a warning, no more.

    Args:
        root, timeout: see :class:`~kdexp.store.store.Store`.
        mirror: where.
        beside: called with each checkpoint that is sent (the run's folder goes along).
    """

    def __init__(self, root: Path, timeout: float, mirror: Mirror, beside: Callable[[], None] = lambda: None):
        super().__init__(root, timeout)
        self.mirror, self.beside = mirror, beside
        self._sending: threading.Thread | None = None
        self._later: str | None = None

    def seek(self, key: str, work: Path | None = None) -> Finished | None:
        """See :class:`~kdexp.store.store.Store`; what is fetched is compared with its checksums.

        Raises:
            ValueError: what lies at the URL is damaged; it is named.
        """
        found = self.get(key)
        if found is not None and found.whole:
            return found
        try:
            with self._incoming(key) as folder:
                meta = self.mirror.pull_stage(key, folder)
                if meta is not None and (found is None or not meta.get("dropped")):
                    found = self._place(key, folder)
            if work is None or (found is not None and found.whole):
                return found
            return self._continue(key, work) or found
        except ValueError:  # what lies there is damaged
            raise
        except Exception as error:  # each protocol has errors of its own
            log.warning("no answer from %s (%s: %s); going on alone", self.mirror.url, type(error).__name__, error)
            return found

    def _continue(self, key: str, work: Path) -> Finished | None:
        """Take up what was begun elsewhere: a checkpoint, or a finished phase of a run that has not ended."""
        mark = files.read_json(work / MARK) or {}
        with self._incoming(key) as folder:
            name = self.mirror.pull_work(key, folder, mark.get("name"))
            if name is None:
                return None
            if (folder / name / "meta.json").exists():
                return self._place(key, folder / name)
            if _step(work) > _step(folder / name):  # this machine has got further than it could send
                return None
            files.write_json(folder / name / MARK, {"name": name})
            shutil.rmtree(work, ignore_errors=True)
            work.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / name, work)
            log.info("stage %s continues from a checkpoint at %s", key[:12], self.mirror.url)
        return None

    @contextmanager
    def _incoming(self, key: str) -> Iterator[Path]:
        """Make a folder of the store's own disk, in which things become complete."""
        (self.root / "incoming").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.root / "incoming", prefix=f"{key[:12]}-") as around:
            folder = Path(around) / "stage"
            folder.mkdir()
            yield folder

    def _place(self, key: str, folder: Path) -> Finished | None:
        """Turn a fetched folder into a finished stage; another process may have been quicker."""
        target = self.root / key
        have = self.get(key, verify=False)
        if have is None or not have.whole:
            shutil.rmtree(target, ignore_errors=True)
            with suppress(OSError):
                os.replace(folder, target)
        return self.get(key)

    @contextmanager
    def carrying(self, stage: Stage) -> Iterator[None]:
        """See :class:`~kdexp.store.store.Store`: when the action ends, the last checkpoint is sent to its end."""
        try:
            yield
        finally:
            self._settle()

    def saved(self, key: str) -> None:
        """Send a checkpoint while the work goes on; if the last one is still on its way, this one waits for it."""
        if self._sending is not None and self._sending.is_alive():
            self._later = key
            return
        copy, around = self._copy(key)
        self._later = None
        self._sending = threading.Thread(target=self._send, args=(key, copy, around), daemon=True)
        self._sending.start()

    def _settle(self) -> None:
        if self._sending is not None:
            self._sending.join()
        if self._later is not None:
            key, self._later = self._later, None
            self._send(key, *self._copy(key))

    def _copy(self, key: str) -> tuple[Path, Any]:
        """Keep what the work folder holds at this moment, as further names of the same files where that can be."""
        (self.root / "incoming").mkdir(parents=True, exist_ok=True)
        around = tempfile.TemporaryDirectory(dir=self.root / "incoming", prefix=f"{key[:12]}-")
        work, copy = self.root / "work" / key, Path(around.name) / "work"
        shutil.copytree(work, copy, ignore=shutil.ignore_patterns(*HOME, "*.tmp"), copy_function=_link)
        return copy, around

    def _send(self, key: str, copy: Path, around: Any) -> None:
        with around, self._warned("a checkpoint"):
            name = self.mirror.push_work(key, copy)
            if (self.root / "work" / key).is_dir():
                files.write_json(self.root / "work" / key / MARK, {"name": name})
            self.beside()

    def _commit(self, stage: Stage, work: Path, summary: dict[str, Any], started: float) -> Finished:
        found = super()._commit(stage, work, summary, started)
        with self._warned(f"stage {stage.name}"):
            if stage.shared:
                self.mirror.push_stage(found.folder, found.meta)
                self.mirror.drop_work(stage.key)
            elif self.mirror.has_work(stage.key):  # long enough to have been sent: nobody shall repeat it
                self.mirror.push_work(stage.key, found.folder)
        return found

    def ended(self, stages: list[Stage]) -> None:
        """See :class:`~kdexp.store.store.Store`: the mirror gets what it lacks of it, weights or records."""
        for stage in stages:
            found = self.get(stage.key, verify=False)
            if found is None:
                continue
            with self._warned(f"stage {stage.name}"):
                there = self.mirror.meta(stage.key)
                if there is None or (found.whole and there.get("dropped")):
                    self.mirror.push_stage(found.folder, found.meta)
                self.mirror.drop_work(stage.key)

    @contextmanager
    def _warned(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each protocol has errors of its own
            log.warning("%s could not be sent to %s (%s: %s)", what, self.mirror.url, type(error).__name__, error)


def _step(work: Path) -> int:
    """Return the update that a begun stage's checkpoint stands at; -1 without one."""
    path = work / "checkpoint" / "state.json"
    state = files.read_json(path) if path.is_file() else None
    return -1 if state is None else int(state["progress"]["step"])


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def open_store(config: Config, where: Path) -> Store:
    """Return the store of a run's configuration, with its mirror behind it if it names one.

    Args:
        where: the run's folder.
    """
    runtime = config.runtime
    found, root, timeout = of(config), Path(runtime.store), runtime.lock_timeout_s
    return Mirrored(root, timeout, found, lambda: found.push_run(where)) if found else Store(root, timeout)


@contextmanager
def run(config: Config, where: Path) -> Iterator[Callable[[], None]]:
    """Share a run's folder: hands out a function that fetches it, and sends it when the run has ended in any way.

    Raises:
        RuntimeError: the run is finished, but its result could not be sent; the same command tries that again.
    """
    found = of(config)
    if found is None:
        yield lambda: None
        return
    try:
        yield lambda: _pull(found, where)
    except ConfigError:
        raise
    except BaseException:
        with suppress(Exception):
            found.push_run(where)
        raise
    _push(found, where)


def meet(points: list[Any]) -> None:
    """Level a grid with object storage before it starts: fetch what others have finished, send what could not be sent.

    Raises:
        RuntimeError: a finished run still cannot be sent.
    """
    mirror = of(points[0].config) if points else None
    if mirror is None:
        return
    here = [point.run_dir for point in points if (point.run_dir / "result.json").exists()]
    missing = [point.run_dir for point in points if point.run_dir not in here]
    for where in mirror.finished(missing):
        mirror.pull_run(where)
    known = set(mirror.finished(here))
    for where in here:
        if where not in known:
            _push(mirror, where)


def unsent(points: list[Any]) -> str:
    """Send what a grid's runs could not send themselves; returns why that fails, or nothing."""
    try:
        meet(points)
    except Exception as error:  # each protocol has errors of its own
        return str(error)
    return ""


def _push(mirror: Mirror, where: Path) -> None:
    try:
        if not mirror.has_result(where):
            mirror.push_run(where)
    except Exception as error:  # each protocol has errors of its own
        raise RuntimeError(
            f"{where} is finished, but could not be sent to {mirror.url} ({type(error).__name__}: {error}): "
            "the same command tries again."
        ) from error


def _pull(mirror: Mirror, where: Path) -> None:
    if mirror.pull_run(where):
        log.info("%s was fetched from %s", where, mirror.url)
