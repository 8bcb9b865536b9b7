"""Threads that take turns: one works while the others wait, so that each has the process to itself until it gives way.

Several runs of one process (a cohort) are such threads. What a process has once, the random number generators above
all, is then nobody's at the wrong moment: a thread loses its turn only where it says so, in :meth:`Turns.give_way` and
while it waits for a lock (:func:`aside`), and finds it as it was when it is its turn again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

Place = tuple[int, ...]
"""How far a thread has come that gave way; the one that is furthest behind goes on. () = before everything."""

Remember = Callable[[], Callable[[], None]]
"""Remembers what a thread shall find again; returns what puts it back."""

_HERE = threading.local()


class Turn:
    """One thread's part in it.

    Attributes:
        number: of the thread, from 0.
        place: how far it has come; None = it cannot be given the turn: it waits for something else, or has left.
        left: it will not come back.
        waited_s: seconds that it has spent without the turn.
    """

    def __init__(self, number: int, lock: threading.Lock) -> None:
        self.number = number
        self.place: Place | None = ()
        self.left = False
        self.waited_s = 0.0
        self.called = threading.Condition(lock)


class Turns:
    """A fixed number of threads, one of which has the turn.

    Args:
        count: threads; the first one begins.
        remember: what a thread takes along from turn to turn.

    Attributes:
        shared: for what they have together, by name.
    """

    def __init__(self, count: int, remember: Remember = lambda: lambda: None) -> None:
        self.shared: dict[str, Any] = {}
        self.remember, self._begin = remember, remember()
        self._lock = threading.Lock()
        self._turns = [Turn(number, self._lock) for number in range(count)]
        self._holder: Turn | None = self._turns[0]
        self._over = False

    def __len__(self) -> int:
        return len(self._turns)

    @contextmanager
    def taking(self, number: int) -> Iterator[None]:
        """Be thread ``number`` from its first turn to its last."""
        me = _HERE.turn = self._turns[number]
        _HERE.turns = self
        try:
            with self._lock:
                self._await(me)
            self._begin()  # each finds what the first one found
            yield
        finally:
            with self._lock:
                me.place, me.left = None, True
                self._pass_on(me)
            del _HERE.turn, _HERE.turns

    def is_here(self, number: int) -> bool:
        """Tell whether a thread has not left yet."""
        return not self._turns[number].left

    def give_way(self, place: Place) -> None:
        """Say how far this thread has come, and go on when nobody is further behind.

        Raises:
            KeyboardInterrupt: :meth:`end` was called.
        """
        with self._lost(place):
            pass

    @contextmanager
    def _lost(self, place: Place | None) -> Iterator[None]:
        """Let others have the turn, as long as one is behind ``place`` (None = anybody); comes back with the turn."""
        me, put_back = _HERE.turn, self.remember()
        with self._lock:
            me.place = place
            self._pass_on(me)
        try:
            yield
        finally:
            with self._lock:
                me.place = place or ()
                self._await(me)
            put_back()

    def end(self) -> None:
        """Let every thread end at its next turn."""
        self._over = True

    def _await(self, me: Turn) -> None:
        """Wait for this thread's turn; the lock is held."""
        began = time.monotonic()
        if self._holder is None:
            self._holder = me
        while self._holder is not me:
            me.called.wait()
        me.place = ()
        me.waited_s += time.monotonic() - began
        if self._over:
            raise KeyboardInterrupt

    def _pass_on(self, me: Turn) -> None:
        """Give the turn to who is furthest behind; this thread keeps it if nobody is behind it. The lock is held."""
        if self._holder is me:
            ready = [turn for turn in self._turns if turn.place is not None]
            self._holder = min(ready, key=lambda turn: (turn.place, turn is not me, turn.number), default=None)
            if self._holder is not None:
                self._holder.called.notify()


@contextmanager
def aside() -> Iterator[None]:
    """Leave the turn to the others while something is waited for; nothing where no turns are taken."""
    turns: Turns | None = getattr(_HERE, "turns", None)
    with nullcontext() if turns is None else turns._lost(None):
        yield


def clock() -> float:
    """Return seconds of this thread's own time: a monotonic clock that stands still while others have the turn."""
    me: Turn | None = getattr(_HERE, "turn", None)
    return time.monotonic() - (0.0 if me is None else me.waited_s)


def number() -> int:
    """Return which thread of those that take turns this is; 0 where none are taken."""
    me: Turn | None = getattr(_HERE, "turn", None)
    return 0 if me is None else me.number
