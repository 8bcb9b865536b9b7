"""What happens inside a run's own process."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

INTERRUPTED = 130
GRACE_S = 20.0
"""How long a run may take to save itself when it is told to stop."""


def work(runs: str, config: dict[str, Any], overrides: list[str], log: str, env: dict[str, str]) -> None:
    """Carry one run out and leave with its exit code: 0 finished, 1 failed, 130 interrupted.

    Args:
        runs: name of the module with ``execute``.
        config: the resolved configuration.
        overrides: for the run's records.
        log: file that receives everything this process prints.
        env: environment of this run (its GPU).
    """
    os.environ.update(env)
    _redirect(Path(log))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the launcher decides
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_watch_parent, daemon=True).start()
    code = 1
    try:
        importlib.import_module(runs).execute(config, overrides)
        code = 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _redirect(log: Path) -> None:
    """Send this process's output, that of C libraries included, to the end of the run's log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _stop(_signal: int, _frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _watch_parent() -> None:
    """Stop this run when the launcher is gone, however it went."""
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    parent = parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)
