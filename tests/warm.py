"""Processes of the program that start warm: forked from one that has imported the libraries, as those of a grid are.

Importing PyTorch, transformers and Hydra takes several seconds of a core, more than a toy run itself, and the tests
start the program hundreds of times. A :class:`Server` imports them once a session; every process is then a fork of it:
with a session, a folder, an environment, arguments and pipes of its own, and as fresh as the server was at its start.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
LIBRARIES = ("PYTEST_", "TORCHINDUCTOR_", "GLOO_")
"""Variables (beginnings of their names) that libraries set in the process of the tests, on their way."""
LATE = (*LIBRARIES, "KDEXP_", "STUB_", "HYDRA_FULL_ERROR")
"""Variables that nothing reads before the program is under way."""
WIDTH = 16
"""Bytes of a number on the pipe that tells of a process."""


class Started:
    """A forked process: of :class:`subprocess.Popen` what tests need.

    Args:
        status: a pipe that tells its number, and at its end its exit code.
        out, err: pipes of what it prints.
    """

    def __init__(self, status: int, out: int, err: int) -> None:
        self.returncode: int | None = None
        self._status, self._said = status, ["", ""]
        self._readers = [
            threading.Thread(target=self._read, args=(n, pipe), daemon=True) for n, pipe in enumerate((out, err))
        ]
        for reader in self._readers:
            reader.start()
        self.pid = int(os.read(status, WIDTH))

    def _read(self, place: int, pipe: int) -> None:
        with open(pipe, encoding="utf-8") as file:
            self._said[place] = file.read()

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        self.returncode = int(os.read(self._status, WIDTH) or -signal.SIGKILL)  # nothing: the server is gone, too
        os.close(self._status)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until it has ended and nobody holds its pipes; returns what was printed.

        Raises:
            subprocess.TimeoutExpired: that takes longer.
        """
        end = None if timeout is None else time.monotonic() + timeout
        for reader in self._readers:
            reader.join(None if end is None else max(0.0, end - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        return self._said[0], self._said[1]

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without warning."""
        self.send_signal(signal.SIGKILL)


class Server:
    """The process that others are forked from.

    Args:
        environment: its own, and that of every process but for :data:`LATE` names.
        modules: what it imports; nothing that starts a thread.
    """

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str]) -> None:
        self.environment, self.umask = dict(environment), present_umask()
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(other.fileno()), *modules], cwd=REPOSITORY, env=self.environment,
            stdin=subprocess.DEVNULL, pass_fds=[other.fileno()], start_new_session=True,
        )  # fmt: skip
        other.close()

    def fits(self, environment: Mapping[str, str], but: tuple[str, ...] = LATE) -> bool:
        """Whether a process of that environment may be forked: only names that begin with ``but`` are others."""
        names = {*environment, *self.environment}
        return all(name.startswith(but) or environment.get(name) == self.environment.get(name) for name in names)

    def start(
        self, name: str, words: Sequence[str], cwd: Path, environment: Mapping[str, str], grid: bool = False
    ) -> Started:
        """Fork a process that does what ``python -m name *words`` does.

        Args:
            name: a module, or the path of a file.
            words: its arguments.
            cwd: its folder.
            environment: its variables.
            grid: whether runs that it starts are forked from a warm process too: they do not see variables of its own,
                and are not of its process group.
        """
        umask = present_umask()
        request = [name, [*map(str, words)], str(cwd), dict(environment), umask, grid and umask == self.umask]
        pipes = [os.pipe() for _ in range(3)]
        socket.send_fds(self._control, [json.dumps(request).encode()], [write for _, write in pipes])
        for _, write in pipes:
            os.close(write)
        return Started(*(read for read, _ in pipes))

    def close(self) -> None:
        """End the server; what it has forked goes on."""
        self._control.close()
        self.process.wait()


def present_umask() -> int:
    """This process's umask, which can only be read by setting another one."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def read_once(folder: Path, now: bool = False) -> None:
    """Have Hydra read each configuration file of a folder once in this process; ``now`` = all of them at once.

    The program does the same for its own files, in each of its processes.
    """
    import copy

    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    Plugins.instance()  # registers the reader
    reader: Any = SourcesRegistry.instance().types["file"]
    read, kept = reader.load_config, dict[Path, Any]()

    def load_config(source: Any, config_path: str) -> Any:
        path = Path(source.path) / source._normalize_file_name(config_path)
        if not path.is_relative_to(folder):
            return read(source, config_path)
        if path not in kept:
            kept[path] = read(source, config_path)
        return copy.deepcopy(kept[path])

    reader.load_config = load_config
    for path in folder.rglob("*.yaml") if now else ():
        load_config(reader("tests", f"file://{folder}"), str(path.relative_to(folder)))


def serve(control: socket.socket) -> tuple[Any, list[int]]:
    """Fork a process for every request; returns the request in that process, and never in this one."""
    running: dict[int, tuple[int, int]] = {}  # what tells of a process's end -> its number, the pipe that wants to know
    while True:
        for ready in select.select([control, *running], [], [])[0]:
            if ready is not control:
                pid, status = running.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.write(status, f"{code:{WIDTH}}".encode())
                os.close(status)
                os.close(ready)
                continue
            message, pipes, _, _ = socket.recv_fds(control, 1 << 20, 3)
            if not message:
                sys.exit()  # the tests are over
            pid = os.fork()
            if not pid:
                for other in (control.fileno(), *running, *(status for _, status in running.values())):
                    os.close(other)
                control.detach()
                return json.loads(message), pipes
            status, *outputs = pipes
            running[os.pidfd_open(pid)] = pid, status
            for pipe in outputs:
                os.close(pipe)


def become(cwd: str, environment: dict[str, str], umask: int, pipes: list[int]) -> None:
    """Make this fork what was asked for: session, outputs, folder, variables."""
    os.setsid()
    status, *outputs = pipes
    for number, pipe in enumerate(outputs, start=1):
        os.dup2(pipe, number)
        os.close(pipe)
    os.umask(umask)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    os.write(status, f"{os.getpid():{WIDTH}}".encode())
    os.close(status)


def main() -> None:
    """Import, serve, and in a fork run what was asked for."""
    import importlib
    import itertools
    import multiprocessing.forkserver as forkserver
    import runpy
    from multiprocessing import util

    from kdexp.cli.main import environment as program_variables

    program_variables()  # as the program does before it imports anything heavy
    for name in sys.argv[2:]:
        importlib.import_module(name)
    read_once(REPOSITORY / "conf", now=True)
    without = dict(vars(forkserver._forkserver))

    def fork(_path: Any, arguments: list[Any], passed: list[int]) -> int:
        """Instead of starting a Python that would import everything again."""
        pid = os.fork()
        if not pid:
            kept = [2, *sorted(passed), os.sysconf("SC_OPEN_MAX")]
            for low, high in itertools.pairwise(kept):
                os.closerange(low + 1, high)
            try:
                exec(os.fsdecode(arguments[-1]), {})
            finally:  # nothing of this stack goes on there
                os._exit(0)
        return pid

    spawn, util.spawnv_passfds = util.spawnv_passfds, fork
    forkserver.ensure_running()
    util.spawnv_passfds = spawn
    request, pipes = serve(socket.socket(fileno=int(sys.argv[1])))
    name, words, cwd, variables, umask, grid = request
    become(cwd, variables, umask, pipes)
    if grid:
        forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None
    else:
        vars(forkserver._forkserver).update(without)
    sys.argv[:] = [name, *words]
    if name.endswith(".py"):
        sys.path[0] = str(Path(name).parent)
        runpy.run_path(name, run_name="__main__")
    else:
        sys.path[0] = cwd
        runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
