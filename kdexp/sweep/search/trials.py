"""The trials of a search as a source of runs: what a launcher starts next, watches, and stops early.

One thread of one process calls all of this; other processes work on the same search through Optuna's storage alone. A
trial is told to Optuna only after its run's files are written, so a process that is killed in between leaves a running
trial with a finished run, and whoever takes it over finds it done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from kdexp.common.searches import said
from kdexp.common.status import read_status
from kdexp.launch.base import Outcome, Source, result
from kdexp.launch.board import Board
from kdexp.launch.pool import amend_status
from kdexp.run.spec import RunSpec
from kdexp.sweep import study as studies
from kdexp.sweep.search.metrics import Tail, measured, selection_line
from kdexp.sweep.search.optimise import Search

Make = Callable[[dict[str, Any]], RunSpec]


PARKED = 4
"""Trials that may wait for a run that is under way elsewhere; more proposals would be made without its result."""


class LeftOut(ValueError):
    """The values of a trial make no run; the message says why."""


@dataclass
class _Active:
    """A trial in work: one run a seed, one after another."""

    trial: Any
    points: list[RunSpec]
    tail: Tail | None
    values: list[list[float]] = field(default_factory=list)
    pruned: str = ""

    @property
    def point(self) -> RunSpec:
        return self.points[len(self.values)]


class Trials(Source):
    """Hands out the runs of trials and tells Optuna how they end.

    Args:
        search: the study.
        make: turns values (key -> value, ``seed`` too where there are several) into a point.
        about: name, scale and command of the study, for study.json.
        board: its total is kept right.
    """

    def __init__(
        self,
        search: Search,
        make: Make,
        about: tuple[str, str, str],
        board: Board,
        devices: frozenset[str],
        each: int = 1,
    ):
        self.search, self.make, self.about, self.board = search, make, about, board
        self.size, self.devices, self.each = search.total, devices, each
        self.active: dict[int, _Active] = {}
        self.queue: list[RunSpec] = []

    def __bool__(self) -> bool:
        return bool(self.queue) or self.search.more()

    def next(self, running: list[RunSpec]) -> RunSpec | None:
        """See :class:`~kdexp.launch.base.Source`."""
        while True:
            if self.queue:
                point = self.queue.pop(0)
            elif self._parked(running) >= max(PARKED, len(running)):
                return None
            else:
                taken = self.search.take()
                if taken is None:
                    return None
                made = self._begin(*taken)
                if made is None:
                    continue
                point = made
            if not self._was_pruned(point):
                return point

    def _parked(self, running: list[RunSpec]) -> int:
        """Count trials whose very run is being carried out by another trial or process."""
        return len(self.active) - len({point.trial for point in running})

    def requeue(self, point: RunSpec) -> None:
        """See :class:`~kdexp.launch.base.Source`."""
        self.queue.append(point)

    def unwanted(self, running: list[RunSpec]) -> list[RunSpec]:
        """Report new evaluations to Optuna; returns the runs that its pruner gives up."""
        out = []
        for point in running:
            active = self.active.get(point.trial if point.trial is not None else -1)
            if active is not None and active.tail is not None and not active.pruned and self._report(active):
                out.append(point)
        return out

    def ended(self, outcome: Outcome) -> Outcome:
        """See :class:`~kdexp.launch.base.Source`."""
        point = outcome.point
        active = self.active[point.trial]  # type: ignore[index]
        if outcome.state in ("finished", "skipped"):
            return self._finished(active, outcome)
        if active.pruned and outcome.state == "interrupted":
            amend_status(point, state="interrupted", error=f"pruned: {active.pruned}", pruned=True)
            return self._pruned(active, outcome)
        error = outcome.error or "interrupted"
        return self._failed(active, outcome, error)

    def _begin(self, trial: Any, values: dict[str, Any]) -> RunSpec | None:
        seeds = self.search.settings.seeds
        try:
            points = [self.make({**values, "seed": seed}) for seed in seeds] if seeds else [self.make(values)]
        except LeftOut as error:
            trial.set_user_attr("left_out", str(error))
            self.board.say(f"trial {trial.number} is left out: {error}")
            self.search.tell(trial, pruned=True)
            self.board.total -= max(1, len(seeds))
            return None
        points = [replace(point, trial=trial.number) for point in points]
        trial.set_user_attr("points", [studies.row(point) for point in points])
        tail = None
        if self.search.settings.pruner != "none" and len(points) == 1:
            tail = Tail(points[0].run_dir / "metrics.jsonl", selection_line(points[0]))
        self.active[trial.number] = _Active(trial, points, tail)
        self.write()
        return points[0]

    def _report(self, active: _Active) -> bool:
        assert active.tail is not None
        for number, value in active.tail.new():
            if not math.isfinite(value):
                continue
            active.trial.report(value, number)
            if active.trial.should_prune():
                who, trial = self.search.settings.pruner, active.trial.number
                active.pruned = f"{who} gave up trial {trial} after evaluation {number} ({value:.4g})"
                return True
        return False

    def _was_pruned(self, point: RunSpec) -> bool:
        """End a trial at no cost whose very run this search has pruned before."""
        active = self.active[point.trial]  # type: ignore[index]
        status = read_status(point.run_dir)
        if not status.get("pruned") or active.tail is None:
            return False
        for number, value in active.tail.new():
            active.trial.report(value, number)
        active.pruned = str(status.get("error"))
        shown = self._pruned(active, Outcome(point, "pruned"))
        self.board.done(shown)
        return True

    def _finished(self, active: _Active, outcome: Outcome) -> Outcome:
        run_result = result(outcome.point)
        try:
            active.values.append([measured(run_result, path) for path in self.search.settings.metrics])
        except ValueError as error:
            return self._failed(active, outcome, str(error), final=True)
        trial, number = active.trial, active.trial.number
        if active.tail is not None:
            for index, value in active.tail.new():
                trial.report(value, index)
        if len(active.points) > 1 and self.search.settings.pruner != "none":
            first = [row[0] for row in active.values]
            trial.report(first[-1] if self.search.settings.pruner == "wilcoxon" else fmean(first), len(first))
            if len(active.values) < len(active.points) and trial.should_prune():
                self.board.total -= len(active.points) - len(active.values)
                part = f"pruned after {len(first)} of {len(active.points)} seeds"
                note = f"trial {number}: {self._said(active.values[-1])}, {part}"
                self._close(active, pruned=True)
                return Outcome(outcome.point, outcome.state, outcome.seconds, note=note)
        note = f"trial {number}: {self._said(active.values[-1])}"
        if len(active.values) < len(active.points):
            self.queue.append(active.point)
            return Outcome(outcome.point, outcome.state, outcome.seconds, note=note)
        values = [fmean(column) for column in zip(*active.values, strict=True)]
        self._close(active, values=values)
        if len(active.points) > 1:
            note += f"; mean {self._said(values)}"
        return Outcome(outcome.point, outcome.state, outcome.seconds, note=note + self._standing(number))

    def _pruned(self, active: _Active, outcome: Outcome) -> Outcome:
        self._close(active, pruned=True)
        return Outcome(outcome.point, "pruned", outcome.seconds, note=active.pruned)

    def _failed(self, active: _Active, outcome: Outcome, error: str, final: bool = False) -> Outcome:
        """Try again, or give the trial up when it has had its chances."""
        active.pruned = ""
        trial, retries = active.trial, self.search.settings.retries
        tried = int(trial.user_attrs.get("attempts", 0)) + 1
        trial.set_user_attr("attempts", tried)
        trial.set_user_attr("error", error)
        if tried <= retries and not final:
            self.queue.append(active.point)
            return Outcome(outcome.point, "retrying", outcome.seconds, error)
        self.board.total -= len(active.points) - len(active.values) - 1
        self._close(active)
        return Outcome(outcome.point, "failed", outcome.seconds, error)

    def _close(self, active: _Active, values: list[float] | None = None, pruned: bool = False) -> None:
        self.search.tell(active.trial, values, pruned)
        del self.active[active.trial.number]
        self.write()

    def _said(self, values: list[float]) -> str:
        return ", ".join(said(path, value) for path, value in zip(self.search.settings.metrics, values, strict=True))

    def _standing(self, number: int) -> str:
        best = self.search.best()
        if len(self.search.settings.metrics) > 1:
            return " (on the Pareto front)" if any(t.number == number for t in best) else ""
        return (
            " (the best so far)"
            if best[0].number == number
            else f" (best {self._said(best[0].values)}, trial {best[0].number})"
        )

    def write(self) -> None:
        """Bring study.json up to date with the trials of all processes."""
        from optuna.trial import TrialState

        name, scale, command = self.about
        with self.search.lock:
            rows: dict[str, dict[str, Any]] = {}
            given_up: dict[str, dict[str, Any]] = {}
            for trial in self.search.trials():
                for point in trial.user_attrs.get("points", []):
                    (given_up if trial.state == TrialState.PRUNED else rows)[point["id"]] = {
                        **point,
                        "trial": trial.number,
                    }
            # A pruned trial of several seeds has finished runs: they count.
            whole = {k: v for k, v in given_up.items() if (self.search.folder / v["name"] / "result.json").exists()}
            rows = {**whole, **rows}
            pruned = [
                row for key, row in given_up.items() if key not in rows and (self.search.folder / row["name"]).exists()
            ]
            studies.write(self.search.folder, name, scale, command, list(rows.values()), pruned=pruned)
