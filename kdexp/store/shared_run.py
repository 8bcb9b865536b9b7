"""Runs' folders on object storage: fetched where a run got further elsewhere, sent for others, asked to stop.

``runs/<study>/<run>/`` holds what a run leaves (``result.json`` is written last), with ``.stop`` while it shall stop.
The rest of the program wraps a run in :func:`run`, levels a study with :func:`meet`, and may hold a :class:`SharedRun`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from kdexp.common import files, results
from kdexp.common.problems import ConfigError
from kdexp.common.status import SHAPE, read_status, state
from kdexp.config.schema import Config
from kdexp.store.remote import ANSWER_S, SEND_S, TRANSFER_S, DamagedThere, RemoteStore, of

T = TypeVar("T")
log = logging.getLogger("kdexp")
RUN = (".hydra/config.yaml", ".hydra/overrides.yaml", "run.log", "metrics.jsonl", "status.json", "result.json")
"""What is shared of a run's folder, in the order in which it is written; locks and tracking marks stay at home.

The predictions that a result names go before it.
"""
GROWING = ("run.log", "metrics.jsonl")
STOP = ".stop"


class SharedRun:
    """A run's folder on object storage, ``runs/<study>/<run>/``.

    Args:
        remote: the storage; None = there is none, and nothing to do.
        run_dir: the folder here; the last two parts of the path are its name there.
    """

    def __init__(self, remote: RemoteStore | None, run_dir: Path):
        self.remote, self.run_dir = remote, run_dir

    def pull(self) -> None:
        """Fetch the folder if the run got further elsewhere: it is finished there, or more attempts were made."""
        if self._do(TRANSFER_S, self._pull):
            log.info("%s was fetched from runtime.remote", self.run_dir)

    def _pull(self, remote: RemoteStore, there: str) -> bool:
        if (self.run_dir / "result.json").exists():
            return False
        status: dict[str, Any] = {}
        with suppress(ValueError):  # a damaged one says nothing
            status = remote.read_record(f"{there}/status.json", SHAPE) or {}
        further = status.get("attempt", 0) > read_status(self.run_dir).get("attempt", 0)
        try:
            result, kept = _result(remote, there)
        except DamagedThere as error:
            log.warning("%s", remote.set_aside(error))
            result, kept = None, {}
        if not further and result is None:
            return False
        for name in [*kept, *(RUN if result is not None else RUN[:-1])]:
            content = kept[name] if name in kept else remote.read(f"{there}/{name}")
            if content is not None and name in GROWING:
                self.run_dir.mkdir(parents=True, exist_ok=True)
                (self.run_dir / name).write_bytes(content)  # in place: this process may be writing to its end
            elif content is not None:
                files.write_bytes(self.run_dir / name, content)
        return True

    def push(self) -> None:
        """Send the folder as it is, its result last."""
        self._do(SEND_S, self._push)

    def _push(self, remote: RemoteStore, there: str) -> None:
        result = files.read_note(self.run_dir / results.RESULT)
        for path in (self.run_dir / name for name in [*_predictions(result), *RUN]):
            if path.is_file():
                content = path.read_bytes()
                if path.name in GROWING:  # whole lines
                    content = content[: content.rfind(b"\n") + 1]
                remote.write(f"{there}/{path.relative_to(self.run_dir)}", content)

    def hand_in(self) -> None:
        """Send the folder of a finished run, unless its result is there.

        Raises:
            RuntimeError: it could not be sent; the same command tries that again.
        """
        try:
            if self._do(ANSWER_S, lambda remote, there: remote.fs.exists(f"{there}/result.json")) is False:
                self.push()
        except Exception as error:  # each protocol has errors of its own
            assert self.remote is not None
            raise RuntimeError(
                f"{self.run_dir} is finished, but could not be sent to {self.remote.url} ({type(error).__name__}: "
                f"{error}): the same command tries again."
            ) from error

    def ask_to_stop(self) -> None:
        """Ask the run to save itself and leave, wherever it is."""
        self._do(ANSWER_S, lambda remote, there: remote.write(f"{there}/{STOP}", b"stop"))

    def asked_to_stop(self) -> bool:
        """Tell whether the run was asked to leave."""
        return bool(self._do(ANSWER_S, lambda remote, there: remote.fs.exists(f"{there}/{STOP}")))

    def let_run(self) -> None:
        """Take back what :meth:`ask_to_stop` asked for."""
        self._do(ANSWER_S, lambda remote, there: remote.remove(f"{there}/{STOP}"))

    def _do(self, seconds: float, call: Callable[[RemoteStore, str], T]) -> T | None:
        """Carry out ``call(remote, place of the run there)`` in time, if there is a storage."""
        remote, name = self.remote, self.run_dir.parts[-2:]
        return None if remote is None else remote.limited(seconds, lambda: call(remote, remote.at("runs", *name)))


def _result(remote: RemoteStore, there: str) -> tuple[dict[str, Any] | None, dict[str, bytes]]:
    """Return the result that lies in a run's folder at the URL, if there is one, and the predictions that it names.

    Raises:
        DamagedThere: one of them is not what was written.
    """
    mark = f"{there}/{results.RESULT}"
    result, kept = remote.read_record(mark, results.SHAPE), dict[str, bytes]()
    for split, expected in (result or {}).get("predictions", {}).items():
        (name,) = _predictions({"predictions": {split: expected}})
        kept[name] = remote.read(f"{there}/{name}") or b""
        if hashlib.sha256(kept[name]).hexdigest() != expected:
            raise DamagedThere(f"{there}/{name} is damaged or missing (its sha256 is not the one noted)", mark)
    return result, kept


def _predictions(result: dict[str, Any]) -> list[str]:
    """Return the files of predictions that a result names, below the run's folder."""
    return [f"predictions/{split}.safetensors" for split in result.get("predictions", {})]


@contextmanager
def run(config: Config, run_dir: Path) -> Iterator[Callable[[], None]]:
    """Share a run's folder: hands out a function that fetches it, and sends it when the run has ended in any way.

    Raises:
        RuntimeError: the run is finished, but its result could not be sent; the same command tries that again.
    """
    shared = SharedRun(of(config), run_dir)
    try:
        yield shared.pull
    except ConfigError:
        raise
    except BaseException:
        with suppress(Exception):
            shared.push()
        raise
    shared.hand_in()


def meet(points: list[Any]) -> None:
    """Level a grid with object storage before it starts: fetch what others have finished, send what could not be sent.

    Raises:
        RuntimeError: a finished run still cannot be sent.
    """
    remote = of(points[0].config) if points else None
    if remote is None:
        return
    results = remote.at("runs", points[0].run_dir.parent.name, "*", "result.json")
    finished = {path.split("/")[-2] for path in remote.limited(TRANSFER_S, lambda: remote.fs.glob(results))}
    for point in points:
        is_here = state(point.run_dir) == "finished"
        if is_here and point.run_dir.name not in finished:
            SharedRun(remote, point.run_dir).hand_in()
        elif not is_here and point.run_dir.name in finished:
            SharedRun(remote, point.run_dir).pull()


def unsent(points: list[Any]) -> str:
    """Send what a grid's runs could not send themselves; returns why that fails, or nothing."""
    try:
        meet(points)
    except Exception as error:  # each protocol has errors of its own
        return str(error)
    return ""
