"""``hydra/sweeper=race``: a grid of recipes that compete, size by size, until they are decided or the budget is spent.

Each point is an ordinary run. Who goes on is decided by :mod:`kdexp.sweep.rounds` from the scores on the split that
selects, so the same command, started again, comes to the same decisions from the results that are there.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from kdexp.common import files
from kdexp.common.files import Damaged
from kdexp.common.problems import ConfigError
from kdexp.common.results import seconds
from kdexp.common.status import state
from kdexp.launch.base import Outcome, Source, devices, each, result
from kdexp.launch.board import duration
from kdexp.run.spec import RunSpec
from kdexp.sweep import rounds, study
from kdexp.sweep.grid import Grid
from kdexp.sweep.plugins import make_launcher
from kdexp.sweep.rounds import Recipe, Standing
from kdexp.sweep.search.metrics import measured

RECORD = "race.json"
SHAPE = {"spent_s": float, "chosen": list, "failed": int}
"""What a race leaves in its study's folder: time spent, the student that was chosen of each size, runs that failed."""
DELIVERED = {"forms", "threads", "timed"}
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Race(Grid):
    """Hydra sweeper: the points of a grid, and who of them is run.

    Args:
        tolerance: share by which the recommended size may be worse than the best one on the split that selects.
        deliver: ``forms``, ``threads``, ``timed`` of what is made of the chosen ones; None = nothing.
        settings: as :class:`~kdexp.sweep.grid.Grid` has them.
    """

    def __init__(self, tolerance: Any = 0.01, deliver: Any = None, **settings: Any):
        super().__init__(**settings)
        self.tolerance, self.deliver = tolerance, deliver

    def sweep(self, arguments: list[str]) -> None:
        """Carry the race on.

        Raises:
            kdexp.common.problems.ConfigError: something must change first; nothing was written.
            SystemExit: code 1, nothing can be chosen.
            kdexp.launch.base.Interrupted: a person stopped it.
        """
        scale, problems = str(self.master.get("scale", "full")), self._unmeant()
        try:
            launcher = make_launcher(OmegaConf.to_container(self.master.hydra.launcher, resolve=True))  # type: ignore[arg-type]
            budget = read_budget(self.master.get("budget"))
            points = self.points(arguments)
            problems += launcher.problems(devices(points), each(points)) + self._problems(points)
        except ConfigError as error:
            raise ConfigError(problems + error.problems) from error
        except ValueError as error:
            raise ConfigError([*problems, str(error)]) from error
        if problems:
            raise ConfigError(problems)
        source = Runners(points, budget, points[0].run_dir.parent)
        if bool(self.master.get("dry")) or self.master.get("plan") == "show":
            print(f"race {points[0].config.study}: {source.plan()}")
            study.show(points[0].config.study, points, study.states(points), launcher)
            return
        _, unsent = study.work_off(points, launcher, scale, source)
        chosen = source.end(float(self.tolerance), scale)
        if unsent or not chosen or (source.failed and not self.deliver):
            raise SystemExit(1)

    def _unmeant(self) -> list[str]:
        """Say what is wrong with the race's own settings."""
        wrong = self._undeliverable()
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int | float) or not self.tolerance >= 0:
            wrong.append(f"hydra.sweeper.tolerance={self.tolerance}: a share from 0 on is wanted, such as 0.01.")
        return wrong

    def _problems(self, points: list[RunSpec]) -> list[str]:
        wrong = []
        selections = {point.config.selection for point in points}
        if selections != {"heldout"}:
            wrong.append(
                f"selection={', '.join(sorted(selections))}: a race decides on rows that are reported nowhere: use "
                "selection=heldout."
            )
        tasks = {point.labels["task"] for point in points}
        if len(tasks) > 1:
            wrong.append(f"task={','.join(sorted(tasks))}: a race is about one task; give each a study of its own.")
        seeds = {len(recipe.runs) for recipes in _sizes(points).values() for recipe in recipes}
        if len(seeds) > 1:
            wrong.append(
                f"some recipes have {min(seeds)} seeds and others {max(seeds)}: a race compares them seed by seed; "
                "give all of them the same."
            )
        metric = points[0].config.task.get("metric")
        if metric in ("loss", "perplexity"):
            wrong.append(f"task.metric={metric}: a race takes the highest score; this one is best where it is lowest.")
        return wrong

    def _undeliverable(self) -> list[str]:
        """Say what is wrong with hydra.sweeper.deliver, or missing for it."""
        if self.deliver is None:
            return []
        prefix = "hydra.sweeper.deliver"
        if not isinstance(self.deliver, dict) or set(self.deliver) != DELIVERED:
            return [
                f"{prefix}={self.deliver}: {', '.join(sorted(DELIVERED))} are wanted, no more and no less; or null."
            ]
        wrong = list[str]()
        if type(self.deliver["threads"]) is not int or self.deliver["threads"] < 1:
            wrong.append(f"{prefix}.threads={self.deliver['threads']}: a whole number from 1 on is wanted.")
        if type(self.deliver["timed"]) is not bool:
            wrong.append(f"{prefix}.timed={self.deliver['timed']}: true or false is wanted.")
        return wrong


def read(folder: Path) -> dict[str, Any]:
    """Return what a race has left in its study's folder.

    Raises:
        Damaged: it is not what was written.
    """
    found = files.read_record(folder / RECORD, SHAPE)
    assert found is not None, "a race writes it before it ends"
    return found


def read_budget(text: Any) -> float | None:
    """Return a budget in seconds; None = there is none.

    Raises:
        ValueError: it is no time.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", str(text).strip())
    value = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not value:
        raise ValueError(f"budget={text}: a time with its unit is wanted, such as 90s, 60m or 2h.")
    return value


class Runners(Source):
    """Hands out the runs that a race needs next.

    Args:
        points: all that may be run.
        budget: seconds, over all sittings; None = no limit.
        folder: of the study.
    """

    def __init__(self, points: list[RunSpec], budget: float | None, folder: Path):
        self.points = {point.id: point for point in points}
        self.devices, self.each = devices(points), each(points)
        self.budget, self.folder = budget, folder
        self.sizes = _sizes(points)
        self.size = sum(
            rounds.most(len(recipes), max(len(recipe.runs) for recipe in recipes)) for recipes in self.sizes.values()
        )
        self.before, self.began = _spent(folder / RECORD), time.monotonic()
        self.scores: dict[str, float | None] = {}
        self.costs: dict[str, float] = {}
        for point in points:
            found = result(point) if state(point.run_dir) == "finished" else None  # a damaged one is made again
            if found:
                self._note(point, found)
        self.under_way: set[str] = set()
        self.spent_out = False

    def __bool__(self) -> bool:
        return not self.spent_out and any(self._standing(size).missing for size in self.sizes)

    def next(self, running: list[RunSpec]) -> RunSpec | None:
        """See :class:`~kdexp.launch.base.Source`: the size that is furthest behind first."""
        waiting = [
            (now.round, number, run)
            for number, size in enumerate(self.sizes)
            for now in [self._standing(size)]
            for run in now.missing
            if run not in self.under_way
        ]
        for _, _, run in sorted(waiting, key=lambda item: item[:2]):
            if self._fits(self.points[run]):
                self.under_way.add(run)
                return self.points[run]
            self.spent_out = True
        return None

    @property
    def left(self) -> int:
        """See :class:`~kdexp.launch.base.Source`."""
        return 0 if self.spent_out else sum(len(self._standing(size).missing) for size in self.sizes)

    def requeue(self, point: RunSpec) -> None:
        """See :class:`~kdexp.launch.base.Source`."""
        self.under_way.discard(point.id)

    def ended(self, outcome: Outcome) -> Outcome:
        """See :class:`~kdexp.launch.base.Source`."""
        point = outcome.point
        self.under_way.discard(point.id)
        if outcome.state in ("finished", "skipped"):
            self._note(point, result(point) or {})
        elif outcome.state == "failed":
            self.scores[point.id] = None
        self._write([])
        return outcome

    @property
    def failed(self) -> int:
        """Runs that failed, or have no score."""
        return sum(score is None for score in self.scores.values())

    def plan(self) -> str:
        """Say what the race is."""
        limit = "" if self.budget is None else f", {duration(self.budget)} at the most, {duration(self.before)} spent"
        each_size = ", ".join(f"{len(recipes)} recipes of {size}" for size, recipes in self.sizes.items())
        return f"{each_size}; about {self.size} of {len(self.points)} runs until it is decided{limit}"

    def end(self, tolerance: float, scale: str) -> list[dict[str, Any]]:
        """Say who has won, write it down, and return it: a line a size, the recommended one marked.

        Args:
            tolerance: see :class:`Race`.
            scale: for the record.
        """
        chosen = list[dict[str, Any]]()
        console = Console(soft_wrap=True, highlight=False)
        for size, recipes in self.sizes.items():
            now, won = self._standing(size), rounds.chosen(recipes, self.scores)
            for line in self._lines(size, now, won):
                console.print(line, markup=False)
            if won:
                chosen.append(self._chosen(size, *won))
        best = max((one["score"] for one in chosen), default=0.0)
        good = [one for one in chosen if one["score"] >= best - tolerance]
        for one in chosen:
            one["recommended"] = one is min(good, key=lambda other: other["parameters"])
        self._write(chosen)
        done = [study.row(point) for point in self.points.values() if self.scores.get(point.id) is not None]
        rest = [study.row(point) for point in self.points.values() if point.id not in self.scores]
        begun = [row for row in rest if (self.folder / row["name"]).exists()]
        name = next(iter(self.points.values())).config.study
        study.write(self.folder, name, scale, study.command(), done, pruned=begun)
        if self.spent_out:
            assert self.budget is not None
            console.print(f"The budget of {duration(self.budget)} is spent: a larger one goes on from here.")
        if not chosen:
            console.print("Nothing can be chosen: no run of any size has ended well.", markup=False)
        for one in chosen:
            if one["recommended"] and len(chosen) > 1:
                console.print(
                    f"{one['size']} is the smallest within {_many(100 * tolerance, 'point')} of the best on "
                    "held-out rows.",
                    markup=False,
                )
        return chosen

    def _lines(self, size: str, now: Standing, won: tuple[Recipe, int] | None) -> list[str]:
        """Return what a person reads of one size: every recipe, the best first."""
        said = list[tuple[int, float, str]]()
        for recipe in self.sizes[size]:
            done = [score for run in recipe.runs if (score := self.scores.get(run)) is not None]
            mean = sum(done) / len(done) if done else float("nan")
            if recipe in now.failed:
                note = "out: a run of it failed"
            elif recipe in now.out:
                note = f"left behind after {_many(now.out[recipe], 'seed')}"
            else:
                note = "chosen" if won and recipe == won[0] else "went on" if done else "not run"
            number = f"{100 * mean:.1f}" if done else "-"
            said.append(
                (
                    len(done),
                    mean if done else 0.0,
                    f"  {recipe.name:<32} {_many(len(done), 'seed')}  {number:>6}  {note}",
                )
            )
        lines = [text for *_, text in sorted(said, key=lambda item: (-item[0], -item[1]))]
        return [f"{size}: mean score x 100 on held-out rows", *lines]

    def _chosen(self, size: str, recipe: Recipe, seeds: int) -> dict[str, Any]:
        """Return the record of a winner: its best run on held-out rows, of those that all seeds had."""
        scored = {run: score for run in recipe.runs if (score := self.scores.get(run)) is not None}
        point = self.points[max(scored, key=lambda run: scored[run])]
        found = result(point) or {}
        return {
            "size": size, "recipe": recipe.name, "run": point.name, "score": rounds.mean(recipe, seeds, self.scores),
            "seeds": seeds, "parameters": found["student"]["parameters"],
            "runs": [self.points[run].name for run in scored],
        }  # fmt: skip

    def _standing(self, size: str) -> Standing:
        return rounds.standing(self.sizes[size], self.scores)

    def _note(self, point: RunSpec, found: dict[str, Any]) -> None:
        try:
            self.scores[point.id] = measured(found, "score")
        except ValueError:
            self.scores[point.id] = None
        self.costs[point.id] = seconds(found) or 0.0

    def _fits(self, point: RunSpec) -> bool:
        """Tell whether a run is expected to end within the budget: as long as the longest of its size, or of all."""
        if self.budget is None:
            return True
        alike = [
            cost for run, cost in self.costs.items() if self.points[run].labels["student"] == point.labels["student"]
        ]
        expected = max(alike or self.costs.values(), default=0.0)
        return self._spent() + expected <= self.budget

    def _spent(self) -> float:
        return self.before + time.monotonic() - self.began

    def _write(self, chosen: list[dict[str, Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_record(self.folder / RECORD, {"spent_s": self._spent(), "chosen": chosen, "failed": self.failed})


def _spent(path: Path) -> float:
    """Return the seconds that a race has taken before; a record that is damaged is named, and counts for nothing."""
    try:
        return float((files.read_record(path, SHAPE) or {}).get("spent_s", 0.0))
    except Damaged as error:
        print(f"{error}: the time spent before is not known, and counts as none", file=sys.stderr)
        return 0.0


def _many(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def _sizes(points: list[RunSpec]) -> Mapping[str, list[Recipe]]:
    """Return the recipes of each size: points that differ by their seed alone are one."""
    alike: dict[str, list[RunSpec]] = {}
    for point in points:
        settings = {key: value for key, value in point.science.items() if key != "seed"}
        alike.setdefault(repr(settings), []).append(point)
    varied = [
        key for key in ("objective", "mapping", "init")
        if len({point.labels[key] for point in points}) > 1
    ]  # fmt: skip
    sizes: dict[str, list[Recipe]] = {}
    for group in alike.values():
        labels = group[0].labels
        name = ", ".join([labels[key] for key in varied] or [labels["objective"]])
        known = {recipe.name for recipe in sizes.get(labels["student"], [])}
        if name in known:  # they differ in a setting that no label tells
            name = f"{name} ({group[0].name})"
        recipe = Recipe(name, labels["student"], tuple(point.id for point in group))
        sizes.setdefault(labels["student"], []).append(recipe)
    return sizes
