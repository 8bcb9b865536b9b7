"""How a run hears that it shall end."""

from __future__ import annotations

import signal as signals
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stop:
    """Becomes true when the process is asked to end (SIGTERM, SIGINT, SIGUSR2); the run then saves and leaves."""

    def __init__(self) -> None:
        self.asked = ""

    def __call__(self) -> bool:
        return bool(self.asked)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to signals while the run lasts (only possible in the main thread). A second Ctrl-C ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {}

        def note(number: int, frame: Any) -> None:
            if self.asked and number == signals.SIGINT:
                raise KeyboardInterrupt
            self.asked = signals.Signals(number).name

        for number in (signals.SIGTERM, signals.SIGINT, signals.SIGUSR2):
            before[number] = signals.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signals.signal(number, handler)
