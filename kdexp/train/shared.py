"""A teacher that is run on every batch, for several students of one process: one pass a batch, whoever asks.

The students take turns (:mod:`kdexp.common.turns`), each in a loop of its own. Before one asks about a micro-batch it
lets those go first that are further behind, so the students of one stream of batches come to each of them together, and
what the teacher said last serves them all. Who is behind (continued from an older checkpoint) catches up alone; who
leaves (finished, failed, stopped early) is not waited for. A student's numbers never depend on its company: what is
reused is what the teacher would say to it alone, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kdexp.common.turns import Place, Turns, number
from kdexp.config.identity import digest
from kdexp.config.schema import Recipe
from kdexp.heads.base import Head
from kdexp.heads.batch import Batch, Features
from kdexp.models import capture, reach
from kdexp.train.question import Question
from kdexp.train.teachers import LiveTeacher

BATCHING = ("batch_size", "accumulation", "shuffle", "bucket", "examples", "max_length")
"""What of a recipe decides which examples come together, and how they are cut."""


def stream(recipe: Recipe) -> dict[str, Any]:
    """Return what of a recipe must be equal for students to meet the same batches."""
    return recipe.model_dump(include=set(BATCHING))


class SharedTeacher:
    """One live teacher and those who listen to it.

    Args:
        model: the teacher.
        head: what it answers.
        quiet: its dropout is off.
        dtype: of autocast, or None for full precision.
        turns: of the listeners.
        run: runs the model, perhaps compiled.
    """

    def __init__(
        self, model: nn.Module, head: Head, quiet: bool, dtype: torch.dtype | None, turns: Turns,
        run: Callable[..., Features] = capture.forward,
    ) -> None:  # fmt: skip
        self.model, self.head, self.quiet, self.dtype = model, head, quiet, dtype
        self.turns, self.run = turns, run
        self.seats: dict[int, Seat] = {}
        self._live: dict[tuple[frozenset[str], bool], LiveTeacher] = {}
        self._said: dict[bool, tuple[Place, Features]] = {}  # of each kind of pass (:attr:`Seat.by_row`), the last one

    @classmethod
    def of(
        cls, turns: Turns, key: dict[str, Any], question: Question, dtype: torch.dtype | None,
        run: Callable[..., Features],
    ) -> SharedTeacher:  # fmt: skip
        """Return the teacher of those who name the same ``key``, which decides all but the features that they want.

        Teachers that nobody listens to any more are given up.
        """
        known = turns.shared
        for name in [name for name, one in known.items() if not one.listeners()]:
            del known[name]
        name = digest(key)
        if name not in known:
            known[name] = cls(question.load(), question.head, question.quiet, dtype, turns, run)
        shared: SharedTeacher = known[name]
        return shared

    def seat(self, want: frozenset[str], answers: bool, depth: int) -> Seat:
        """Return the teacher as one student hears it.

        Args:
            want: names of the features that it is told.
            answers: it is told the head's outputs.
            depth: how far into its run the phase is: who is in an earlier phase goes first.
        """
        self.seats[number()] = seat = Seat(self, want, answers, depth)
        return seat

    def listeners(self) -> list[Seat]:
        """Return the seats of those who are still there."""
        return [seat for who, seat in self.seats.items() if self.turns.is_here(who)]

    def ask(self, seat: Seat, batch: Batch) -> Features:
        """Return what the teacher says to one student, for all who come to this batch if it is not known yet."""
        if seat.place is None:
            seat.paid += 1
            return self._run(batch, seat.want, seat.answers)
        last = self._said.get(seat.by_row)
        if last is None or last[0] != seat.place or not seat.names <= last[1].keys():
            alike = [seat, *(other for other in self.listeners() if other.by_row == seat.by_row)]
            want = frozenset[str]().union(*(other.want for other in alike))
            last = seat.place, self._run(batch, want, any(other.answers for other in alike))
            self._said[seat.by_row] = last
            seat.paid += 1
        return {name: values for name, values in last[1].items() if name in seat.names}

    def _run(self, batch: Batch, want: frozenset[str], answers: bool) -> Features:
        if (want, answers) not in self._live:
            live = LiveTeacher(self.model, self.head, want, self.dtype, self.quiet, answers, self.run)
            self._live[want, answers] = live
        return self._live[want, answers](batch)


class Seat:
    """A shared teacher as one student hears it.

    Attributes:
        names: of everything that it is told.
        by_row: the teacher's last block is run for the first token only, which rounds otherwise: such a student is
            served by another pass than those who want more of that block.
        place: the micro-batch that it will ask about; None = nobody is waited for.
        asked, paid: micro-batches that it has asked about, and those for which the teacher was run in its turn.
    """

    def __init__(self, teacher: SharedTeacher, want: frozenset[str], answers: bool, depth: int) -> None:
        self.teacher, self.want, self.answers, self.depth = teacher, want, answers, depth
        self.names = want | (set(teacher.head.names) if answers else set())
        capture.prepare(teacher.model, want)
        self.by_row = reach.describe(teacher.model, teacher.head, want, answers).get("next") == "first token"
        self.place: Place | None = None
        self.asked = self.paid = 0

    def turn(self, number: int, micro: int) -> None:
        """Let those go first that are further behind (see :class:`kdexp.train.loop.LoopSettings`)."""
        self.place = (self.depth, number, micro)
        self.teacher.turns.give_way(self.place)

    def leave(self) -> None:
        """Listen no longer: nobody is waited for, and what is asked from now on is answered for its own sake."""
        self.place = None
        self.teacher.seats = {who: seat for who, seat in self.teacher.seats.items() if seat is not self}

    def __call__(self, batch: Batch) -> Features:
        """Return the teacher's features for a batch, as :class:`kdexp.train.teachers.LiveTeacher` would."""
        self.asked += 1
        return self.teacher.ask(self, batch)
