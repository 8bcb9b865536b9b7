"""The processes of a run on several devices: brought together, told what to do, let go.

Rank 0 is the run itself. It starts the others (``runtime.devices``), which find it through a file in a folder that only
this user sees and talk to it over the loopback interface; or ``torchrun`` has started all of them, on one machine or
several with a common disk. The others run :func:`follow`: whatever stage rank 0 carries out, they carry out beside it,
in a folder that is thrown away. When one of them is gone the run ends with a sentence, and the others with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from kdexp.common import machine
from kdexp.common.files import Interrupted
from kdexp.common.stop import Stop
from kdexp.methods import base as methods
from kdexp.run.spec import typed
from kdexp.store.stage import Stage
from kdexp.store.store import Store
from kdexp.train import distributed
from kdexp.train.context import RunContext
from kdexp.train.distributed import Ranks
from kdexp.train.phase import Phase

MEETING = "KDEXP_MEETING"
"""Environment of a process that rank 0 has started: the folder with the file that they find each other by."""
PARENT = "KDEXP_PARENT"
"""Environment of such a process: the process id of rank 0."""
LEAVE_S = 10.0
"""Seconds that the others may take to end, and rank 0 to notice that one of them has."""
WATCH_S = 1.0
MET = threading.Event()
"""Set when the processes that ``torchrun`` has started have been brought together."""
GOES_ON = "The last checkpoint is kept: the same command goes on from there."


class Lost(RuntimeError):
    """Another process of the run has ended."""


@contextlib.contextmanager
def gathered(run: RunContext) -> Iterator[Ranks]:
    """Bring the processes of a run together; they are let go at the end.

    Raises:
        Lost: one of the others ended; the message says why, as far as it is known.
    """
    with contextlib.ExitStack() as stack:
        crew = _Crew([], None)
        if machine.launched() > 1:
            MET.set()
            ranks = distributed.meet_torchrun()
        elif run.config.runtime.devices > 1:
            crew = stack.enter_context(_started(run.config.runtime.devices, run.threads))
            ranks = distributed.meet(_store(crew.folder), 0, crew.size, 0)
        else:
            yield distributed.ALONE
            return
        stack.callback(distributed.part)
        try:
            yield ranks
            ranks.told(None)
            crew.over.set()
        except RuntimeError as error:
            crew.over.set()
            ended = None if isinstance(error, torch.OutOfMemoryError) else crew.ended(LEAVE_S)
            if ended is None and _is_about_another(error):
                ended = "another process of this run has ended; its own message says why"
            if ended is None:
                raise
            raise Lost(f"{ended.rstrip('.')}. {GOES_ON}") from error


def order(run: RunContext, stage: Stage) -> None:
    """Tell the others which stage is carried out now; they must be able to read what it is made from."""
    if run.ranks.size > 1:
        run.ranks.told(
            {
                "config": run.config.model_dump(), "stage": _plain(stage), "device": run.device.type,
                "dtype": run.dtype, "threads": run.threads,
            }
        )  # fmt: skip


def dismiss() -> None:
    """Let go of processes that ``torchrun`` has started, where there was nothing for them to do."""
    if not MET.is_set():
        distributed.meet_torchrun().told(None)
        distributed.part()


def follow() -> int:
    """Be one of the others: carry out what rank 0 says until it says no more; returns the exit code."""
    folder, rank = os.environ.get(MEETING), int(os.environ["RANK"])
    try:
        if folder is None:
            ranks = distributed.meet_torchrun()
        else:
            threading.Thread(target=_leave_with_parent, daemon=True).start()
            ranks = distributed.meet(_store(Path(folder)), rank, int(os.environ["WORLD_SIZE"]), rank)
        stop = Stop()
        with stop.listening():
            while (told := ranks.told()) is not None:
                _beside(told, ranks, stop)
        return 0
    except (Interrupted, KeyboardInterrupt):
        return 0  # rank 0 was asked to stop, and says so
    except BaseException as error:
        if not _is_about_another(error):
            lines = [line for line in str(error).splitlines() if line.strip()]
            _complain(folder, rank, f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": "))
        return 1


def _beside(told: dict[str, Any], ranks: Ranks, stop: Stop) -> None:
    """Carry out the stage that rank 0 is carrying out."""
    config, problems = typed(told["config"])
    assert config is not None, problems
    stage, store = _stage(told["stage"]), Store(Path(config.runtime.store))
    inputs = {role: store.get(parent.key) for role, parent in stage.parents.items()}
    torch.set_num_threads(told["threads"])
    with tempfile.TemporaryDirectory(prefix="kdexp-") as work:
        run = RunContext(
            config=config, device=ranks.device(told["device"]), dtype=told["dtype"], threads=told["threads"],
            cache=store.root / "cache", say=lambda line: None, stop=stop, ranks=ranks,
        )  # fmt: skip
        known = {role: parent for role, parent in inputs.items() if parent is not None}
        methods.action(stage.action)(Phase(stage, known, Path(work), run))


def _plain(stage: Stage) -> dict[str, Any]:
    """Return a stage's plain values; the configuration that it is carried out with travels beside it."""
    parents = {role: _plain(parent) for role, parent in stage.parents.items()}
    return {
        "name": stage.name, "action": stage.action, "settings": stage.settings, "parents": parents,
        "shared": stage.shared, "role": stage.role,
    }  # fmt: skip


def _stage(plain: dict[str, Any]) -> Stage:
    """Make a stage again of its plain values."""
    return Stage(**{**plain, "parents": {role: _stage(parent) for role, parent in plain["parents"].items()}})


def _is_about_another(error: BaseException) -> bool:
    """Tell whether an error says no more than that another process cannot be reached any more."""
    lost = ("closed by peer", "Connection reset", "Connection refused", "Broken pipe", "Socket closed")
    return isinstance(error, dist.DistNetworkError) or any(words in str(error) for words in lost)


def _complain(folder: str | None, rank: int, sentence: str) -> None:
    """Leave the last words of one of the others where rank 0 finds them; ``torchrun`` shows what is printed."""
    if folder is None:
        print(f"failed: process {rank}: {sentence}", file=sys.stderr, flush=True)
    else:
        with contextlib.suppress(OSError):  # rank 0 was quicker
            (Path(folder) / f"error{rank}").write_text(sentence)


def _leave_with_parent() -> None:
    """End this process when rank 0 is gone, perhaps before this one had begun: a killed one can say nothing."""
    while os.getppid() == int(os.environ[PARENT]):
        time.sleep(WATCH_S)
    os._exit(1)


def _store(folder: Path | None) -> dist.Store:
    assert folder is not None
    return dist.FileStore(str(folder / "meeting"), -1)


class _Crew:
    """The processes that rank 0 has started.

    Args:
        processes: by rank, from 1.
        folder: where they meet, and leave their last words.
    """

    def __init__(self, processes: list[subprocess.Popen[bytes]], folder: Path | None) -> None:
        self.processes, self.folder, self.over = processes, folder, threading.Event()

    @property
    def size(self) -> int:
        """Ranks, rank 0 among them."""
        return len(self.processes) + 1

    def ended(self, patience: float = 0.0) -> str | None:
        """Say which one ended that should not have; None if there is none after so many seconds."""
        until = time.monotonic() + patience
        while self.processes:
            for rank, process in enumerate(self.processes, 1):
                if process.poll():
                    return self._sentence(rank, process.returncode)
            if time.monotonic() >= until:
                break
            time.sleep(0.1)
        return None

    def _sentence(self, rank: int, code: int) -> str:
        assert self.folder is not None
        words = self.folder / f"error{rank}"
        why = words.read_text() if words.is_file() else f"exit code {code}"
        if code < 0:
            why = f"it was killed by {signal.Signals(-code).name}"
        return f"process {rank} of this run's {self.size} (counted from 0) ended: {why}"

    def watch(self) -> None:
        """End this process when another one has ended and it has not noticed: a GPU's exchange waits for ever."""
        while not self.over.wait(WATCH_S):
            ended = self.ended()
            if ended and not self.over.wait(3 * LEAVE_S):
                print(f"failed: {ended}. {GOES_ON}", file=sys.stderr, flush=True)
                os._exit(1)


@contextlib.contextmanager
def _started(size: int, threads: int) -> Iterator[_Crew]:
    """Start the other processes of a run on this machine; they are gone at the end."""
    loopback = "lo" if "lo" in {name for _, name in socket.if_nameindex()} else "lo0"
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, loopback)
    with tempfile.TemporaryDirectory(prefix="kdexp-") as folder:
        env = {**os.environ, MEETING: folder, PARENT: str(os.getpid()), "WORLD_SIZE": str(size)}
        env["OMP_NUM_THREADS"] = str(threads)
        command = [sys.executable, "-m", "kdexp.run.crew"]
        crew = _Crew([], Path(folder))
        try:
            for rank in range(1, size):  # a session of their own: Ctrl-C is for rank 0, which tells them
                beside = {**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                crew.processes.append(
                    subprocess.Popen(command, env=beside, stdin=subprocess.DEVNULL, start_new_session=True)
                )
            threading.Thread(target=crew.watch, daemon=True).start()
            yield crew
        finally:
            crew.over.set()
            for process in crew.processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LEAVE_S)
                if process.poll() is None:
                    process.kill()
                    process.wait()


if __name__ == "__main__":
    sys.exit(follow())
