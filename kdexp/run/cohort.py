"""Several runs carried out in one process, taking turns: a cohort, whose students ask a live teacher together.

Each run is what it is alone, in a thread of its own: its lock, status, log, result, stages and tracking; one that fails
ends its thread and no other. What they share is the process, and in it the teacher (:mod:`kdexp.train.shared`).
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence

from kdexp.common.stop import Stop
from kdexp.common.turns import Turns
from kdexp.run.execute import execute
from kdexp.run.spec import RunSpec

Ends = list[BaseException | None]
"""Of each run what stopped it; None = it is finished."""


def carry_out(specs: Sequence[RunSpec]) -> Ends:
    """Carry runs out together, each to its own end.

    A signal reaches all of them: they save themselves one after another. A second Ctrl-C does not wait for that.
    """
    if len(specs) == 1:  # it has the process, and hears signals, itself
        try:
            execute(specs[0])
            return [None]
        except (Exception, KeyboardInterrupt) as error:
            return [error]
    turns, stop, ends = Turns(len(specs), _generators), Stop(), Ends([None] * len(specs))

    def member(number: int) -> None:
        try:
            with turns.taking(number):
                execute(specs[number], stop, turns)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # the others may need the memory of its model
            ends[number] = error

    threads = [threading.Thread(target=member, args=(number,), name=spec.name) for number, spec in enumerate(specs)]
    with stop.listening():
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            turns.end()
            for thread in threads:
                thread.join()
    return ends


def _generators() -> Callable[[], None]:
    """Remember the states of the random number generators; returns what puts them back."""
    import torch

    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    state = torch.get_rng_state()

    def put_back() -> None:
        torch.set_rng_state(state)
        if devices:
            torch.cuda.set_rng_state_all(devices)

    return put_back
