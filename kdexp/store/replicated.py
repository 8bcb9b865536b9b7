"""A store with object storage behind it: asks there for what is missing here, sends what others will need.

The rest of the program opens it with :func:`open_store`; without ``runtime.remote`` it is the local store.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from kdexp.common import files
from kdexp.common.files import Damaged
from kdexp.config.schema import Config
from kdexp.store.remote import SEND_S, TRANSFER_S, DamagedThere, RemoteStore, of
from kdexp.store.shared_run import SharedRun
from kdexp.store.stage import Stage
from kdexp.store.store import Finished, Store

log = logging.getLogger("kdexp")
MARK = "pushed.json"
"""In a work folder: the name of the checkpoint that was sent or fetched last."""
HOME = ("checkpoint.new", "checkpoint.old", "checkpoint.damaged", "best.safetensors", "holder.json", MARK)
"""What of a work folder is never sent."""


class Replicated:
    """The store as a run uses it: this machine's, and object storage behind it where there is one.

    Sending is a service to others: while a run is under way, a storage that is away costs a warning, no more. It
    happens in line, when a checkpoint has just been written: nothing changes the files meanwhile, so no copy is kept
    and no thread is waited for; :meth:`~kdexp.store.remote.RemoteStore.limited` bounds what it may cost.

    Args:
        store: this machine's.
        remote: the storage; None = there is none.
        run: the run, whose folder goes along with every checkpoint.
    """

    def __init__(self, store: Store, remote: RemoteStore | None = None, run: SharedRun | None = None):
        self.store, self.remote, self.run = store, remote, run
        self.root, self.using, self.drop_weights = store.root, store.using, store.drop_weights

    def seek(self, key: str, work: Path | None = None) -> Finished | None:
        """Return a finished stage from wherever it can be had, or None; what is fetched is compared with its checksums.

        Args:
            work: folder for what has been begun elsewhere, if the stage is not finished. Its lock is held.

        What is damaged counts as missing: here, whoever builds it sets it aside; at the URL, that is done with its
        lock held.

        Raises:
            ValueError: what lies at the URL is damaged and cannot be set aside; it is named.
        """
        try:
            have = self.store.get(key)
        except Damaged:  # whoever builds it sets it aside
            have = None
        if self.remote is None or (have is not None and have.whole):
            return have
        try:
            have = self._fetch_stage(self.remote, key, have)
            if work is None or (have is not None and have.whole):
                return have
            return self._continue(self.remote, key, work) or have
        except DamagedThere as error:
            if work is None:
                log.warning("%s", error)
                return have
            log.warning("%s", self._aside(self.remote, error))
            return self.seek(key, work)
        except Exception as error:  # each protocol has errors of its own
            log.warning("no answer from %s (%s: %s); going on alone", self.remote.url, type(error).__name__, error)
            return have

    @staticmethod
    def _aside(remote: RemoteStore, error: DamagedThere) -> str:
        return remote.limited(SEND_S, partial(remote.set_aside, error))

    def _fetch_stage(self, remote: RemoteStore, key: str, have: Finished | None) -> Finished | None:
        with self._incoming(key) as folder:
            meta = remote.limited(TRANSFER_S, lambda: remote.pull_stage(key, folder))
            if meta is None or (have is not None and meta.get("dropped")):
                return have
            return self._place(key, folder)

    def _continue(self, remote: RemoteStore, key: str, work: Path) -> Finished | None:
        """Take up what was begun elsewhere: a checkpoint, or a finished phase of a run that has not ended."""
        known = files.read_note(work / MARK).get("name")
        with self._incoming(key) as folder:
            name = remote.limited(TRANSFER_S, lambda: remote.pull_work(key, folder, known))
            if name is None:
                return None
            if (folder / name / "meta.json").exists():
                return self._place(key, folder / name)
            if _step(work) > _step(folder / name):  # this machine has got further than it could send
                return None
            files.write_record(folder / name / MARK, {"name": name})
            shutil.rmtree(work, ignore_errors=True)
            work.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / name, work)
            log.info("stage %s continues from a checkpoint at %s", key[:12], remote.url)
        return None

    @contextmanager
    def _incoming(self, key: str) -> Iterator[Path]:
        """Make a folder of the store's own disk, in which things become complete.

        A fetch that was left behind may still write there when it is taken away: nothing is moved from it then.
        """
        place = self.root / "incoming"
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place, prefix=f"{key[:12]}-", ignore_cleanup_errors=True) as around:
            folder = Path(around) / "stage"
            folder.mkdir()
            yield folder

    def _place(self, key: str, folder: Path) -> Finished | None:
        """Turn a fetched folder into a finished stage; another process may have been quicker."""
        have = None
        with suppress(Damaged):
            have = self.store.get(key)
        if have is None or not have.whole:
            shutil.rmtree(self.root / key, ignore_errors=True)
            with suppress(OSError):
                os.replace(folder, self.root / key)
        return self.store.get(key)

    def build(
        self,
        stage: Stage,
        action: Callable[[Path], dict[str, Any]],
        say: Callable[[str], None],
        stop: Callable[[], bool] = lambda: False,
    ) -> tuple[Finished, bool]:
        """See :meth:`kdexp.store.store.Store.build`; one that is finished or begun elsewhere is fetched first."""
        finished, is_old = self.store.build(stage, action, say, stop, fetch=lambda work: self.seek(stage.key, work))

        if self.remote is not None and not is_old:
            with self._warned(f"stage {stage.name}"):
                self.remote.limited(TRANSFER_S, partial(_share, self.remote, finished))
        return finished, is_old

    def saved(self, key: str) -> None:
        """Send a stage's checkpoint, which has just been written, and the run's folder beside it."""
        if self.remote is None:
            return
        work = self.root / "work" / key
        with self._warned("a checkpoint"):
            name = self.remote.limited(SEND_S, partial(self.remote.push_work, key, work, HOME))
            files.write_record(work / MARK, {"name": name})
            if self.run is not None:
                self.run.push()

    def ended(self, stages: list[Stage]) -> None:
        """Give the storage what it lacks of the stages of a run that has ended well: weights or records."""
        if self.remote is None:
            return
        for stage in stages:
            with self._warned(f"stage {stage.name}"):
                finished = self.store.get(stage.key, verify=False)
                if finished is not None:
                    self.remote.limited(TRANSFER_S, partial(_complete, self.remote, finished))

    @contextmanager
    def _warned(self, what: str) -> Iterator[None]:
        """Make trouble with what is done for others a warning."""
        assert self.remote is not None
        try:
            yield
        except Exception as error:  # each protocol has errors of its own
            log.warning("%s could not be sent to %s (%s: %s)", what, self.remote.url, type(error).__name__, error)


def _share(remote: RemoteStore, finished: Finished) -> None:
    """Send a stage that has just been finished, if others are expected to need it."""
    if finished.meta["shared"]:
        _complete(remote, finished)
    elif remote.has_work(finished.meta["key"]):  # long enough to have been sent: nobody shall repeat it
        remote.push_work(finished.meta["key"], finished.folder)


def _complete(remote: RemoteStore, finished: Finished) -> None:
    """Send a stage, or the weights that only its record has there; what was begun of it is over."""
    try:
        there = remote.meta(finished.meta["key"])
    except DamagedThere as error:
        log.warning("%s", remote.set_aside(error))
        there = None
    if there is None or (finished.whole and there.get("dropped")):
        remote.push_stage(finished.folder, finished.meta)
    remote.drop_work(finished.meta["key"])


def _step(work: Path) -> int:
    """Return the update that a begun stage's checkpoint stands at; -1 without one."""
    progress = files.read_note(work / "checkpoint" / "state.json").get("progress")
    return int(progress["step"]) if isinstance(progress, dict) else -1


def open_store(config: Config, run_dir: Path) -> Replicated:
    """Return the store of a run's configuration."""
    runtime, remote = config.runtime, of(config)
    return Replicated(Store(Path(runtime.store), runtime.lock_timeout_s), remote, SharedRun(remote, run_dir))
