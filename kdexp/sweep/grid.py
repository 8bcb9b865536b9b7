"""``hydra/sweeper=grid``: the points of a study, composed and checked together before anything is started."""

from __future__ import annotations

import fnmatch
import gc
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from kdexp.check import probes
from kdexp.common.problems import ConfigError
from kdexp.config.resolve import resolve
from kdexp.launch.base import devices, each
from kdexp.run import spec
from kdexp.run.spec import RunSpec
from kdexp.sweep import study
from kdexp.sweep.compose import Composer, CompositionError
from kdexp.sweep.grammar import MOST_POINTS, Combination, bare, choose_form, expand, override_values
from kdexp.sweep.plugins import experiment_sweep, make_launcher

UNSWEPT = ("experiment", "scale", "dry", "study", "plan", "budget")
"""Keys that describe a whole study: each has one value."""


class Grid(Sweeper):
    """Hydra sweeper that builds a study's points and hands them to one of kdexp's launchers.

    Args:
        params, zip, set, union, exclude, scales: see :mod:`kdexp.sweep.grammar`.
        most_points: how many a grid may have; null = as many as :data:`kdexp.sweep.grammar.MOST_POINTS`.
    """

    def __init__(
        self,
        params: Any = None,
        zip: Any = None,
        set: Any = None,
        union: Any = None,
        exclude: Any = None,
        scales: Any = None,
        most_points: Any = None,
    ):
        self.form = {"params": params, "zip": zip, "set": set, "union": union, "exclude": exclude, "scales": scales}
        self.most = MOST_POINTS if most_points is None else most_points

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hear from Hydra what is swept."""
        self.context: HydraContext = hydra_context
        self.master: DictConfig = config

    def sweep(self, arguments: list[str]) -> None:
        """Carry the study out.

        Raises:
            kdexp.common.problems.ConfigError: something must change first; it holds the problems of all points, and
                nothing was written.
            SystemExit: code 1, some runs failed.
            kdexp.launch.base.Interrupted: a person stopped it.
        """
        try:
            launcher = make_launcher(OmegaConf.to_container(self.master.hydra.launcher, resolve=True))  # type: ignore[arg-type]
            points = self.points(arguments)
            problems = launcher.problems(devices(points), each(points)) + unbudgeted(self.master)
            if problems:
                raise ConfigError(problems)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError([str(error)]) from error
        dry = bool(self.master.get("dry")) or self.master.get("plan") == "show"
        study.carry_out(points, launcher, scale=str(self.master.get("scale", "full")), dry=dry)

    def points(self, arguments: list[str]) -> list[RunSpec]:
        """Return all points of the study: composed, checked, without duplicates and exclusions.

        Raises:
            ValueError: the form or the command line cannot work.
            kdexp.common.problems.ConfigError: points cannot work.
        """
        refused = experiment_sweep(arguments)
        if refused:
            raise ValueError(refused)
        if type(self.most) is not int or self.most < 1:
            raise ValueError(f"hydra.sweeper.most_points={self.most}: give a whole number from 1 on, or null.")
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        command: dict[str, list[str]] = {}
        for override in parser.parse_overrides(arguments):
            key = bare(override.get_key_element())
            command[key] = override_values(override, self.most)
            if key in UNSWEPT and len(command[key]) > 1:
                raise ValueError(f"{override.input_line}: {key} belongs to the whole study; give it one value.")
        form = choose_form(self.form, str(self.master.get("scale", "full")))
        combinations = expand(form, command, parser.parse_override, self.most)
        with _uncollected():
            return Builder(self.context.config_loader, self.master).build(combinations)


def unbudgeted(master: DictConfig) -> list[str]:
    """Say that a budget has no effect, if there is one: only a race has a use for it."""
    if master.get("budget") is None:
        return []
    return [f"budget={master.budget} has no effect: only races have one (+experiment=compress, hydra/sweeper=race)."]


class Builder:
    """Composes and checks combinations; collects what is wrong with any of them.

    Args:
        loader: Hydra's configuration loader.
        master: the sweep's own composed configuration, with its ``hydra`` node.
    """

    def __init__(self, loader: Any, master: DictConfig):
        self.composer = Composer(loader, master)
        self.refused: dict[str, list[Combination]] = {}
        self.excluded: dict[int, int] = {}
        self.checked: dict[str, list[str]] = {}

    def build(self, combinations: list[Combination]) -> list[RunSpec]:
        """Return the points of a grid, each once.

        Raises:
            kdexp.common.problems.ConfigError: points cannot work; it holds the problems of all of them.
        """
        points: dict[str, RunSpec] = {}
        twice, notes = 0, Counter[str]()
        self.excluded = {id(e): 0 for c in combinations for e in c.exclusions}
        for combination in combinations:
            point = self.point(combination)
            if point is None:
                continue
            twice += point.id in points
            notes.update(point.notes)
            points.setdefault(point.id, point)
        self._report(combinations, twice, notes)
        if self.refused:
            raise ConfigError([self._sentence(text, alike, combinations) for text, alike in self.refused.items()])
        if not points:
            raise ConfigError(["the grid has no points: everything is excluded."])
        names = list(dict.fromkeys(point.config.study for point in points.values()))
        if len(names) > 1:
            raise ConfigError([f"the points belong to several studies ({', '.join(names)}): start them one by one."])
        unreachable = probes.problems(point.config for point in points.values())  # once for all of them
        if unreachable:
            raise ConfigError(unreachable)
        return list(points.values())

    def point(self, combination: Combination) -> RunSpec | None:
        """Return one point; None if it is excluded or wrong (``refused`` then says why)."""
        overrides = list(combination.assignment.values())
        try:
            composed = self.composer.compose(overrides)
            raw, choices = resolve(composed.config), composed.choices
        except (CompositionError, ValueError) as error:
            self.refused.setdefault(str(error), []).append(combination)
            return None
        try:
            for exclusion in combination.exclusions:
                if all(_matches(key, value, choices, raw) for key, value in exclusion.where.items()):
                    self.excluded[id(exclusion)] += 1
                    return None
        except KeyError as error:
            key = error.args[0]
            text = f"exclude: {key} is neither a group nor a key of the configuration; correct it or leave it out."
            self.refused.setdefault(text, []).append(combination)
            return None
        point, problems = spec.prepare_resolved(raw, overrides, checked=self.checked)
        for text in problems:
            self.refused.setdefault(text, []).append(combination)
        return point

    def _report(self, combinations: list[Combination], twice: int, notes: Counter[str]) -> None:
        for exclusion in {id(e): e for c in combinations for e in c.exclusions}.values():
            count, where = self.excluded[id(exclusion)], ", ".join(f"{k}={v}" for k, v in exclusion.where.items())
            text = f"left out: {count} points with {where}: {exclusion.reason}"
            print(text if count else f"exclude: no point has {where}", file=sys.stderr)
        for note, count in notes.items():
            print(f"{note} ({count} of {len(combinations)} points)", file=sys.stderr)
        if twice:
            print(f"merged: {twice} points are the same run as another one", file=sys.stderr)

    @staticmethod
    def _sentence(text: str, alike: list[Combination], everything: list[Combination]) -> str:
        if len(everything) == 1:
            return text
        if len(alike) == len(everything):
            return f"{text} (all {len(everything)} points)"
        common = set.intersection(*(set(c.assignment.values()) for c in everything))
        example = " ".join(t for t in alike[0].assignment.values() if t not in common)
        return f"{text} ({len(alike)} of {len(everything)} points, such as {example})"


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let no garbage be looked for meanwhile: points stay, and every look at them costs as much as making some."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _matches(key: str, wanted: Any, choices: Mapping[str, str | None], config: Mapping[str, Any]) -> bool:
    """Tell whether a point's group choice or value is one of those wanted (``*`` stands for anything)."""
    if key in choices:
        value: Any = choices[key]
    else:
        value = config
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise KeyError(key)
            value = value[part]
    options = wanted if isinstance(wanted, list) else [wanted]
    return any(value == option or fnmatch.fnmatchcase(str(value), str(option)) for option in options)
