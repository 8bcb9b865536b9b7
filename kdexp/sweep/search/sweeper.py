"""``hydra/sweeper=optuna``: a search that decides what to try next from what has come in.

Thin on purpose: Optuna's ask-and-tell decides, kdexp's launchers carry out, and each trial is an ordinary run. Why not
the published plugin: docs/operations.md.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from kdexp.check import probes
from kdexp.common.problems import ConfigError, near
from kdexp.config.identity import ROOT, science
from kdexp.config.resolve import resolve
from kdexp.launch.base import Interrupted, Launcher
from kdexp.launch.board import Board
from kdexp.run import spec
from kdexp.run.spec import RunSpec
from kdexp.sweep import study
from kdexp.sweep.grammar import Combination, Exclusion, bare, exclusion, one, override_values
from kdexp.sweep.grid import UNSWEPT, Builder, unbudgeted
from kdexp.sweep.plugins import experiment_sweep, make_launcher
from kdexp.sweep.search import report
from kdexp.sweep.search import settings as search_settings
from kdexp.sweep.search import space as spaces
from kdexp.sweep.search.optimise import Search
from kdexp.sweep.search.trials import LeftOut, Trials
from kdexp.tracking import following

SETTINGS = (
    "space", "set", "exclude", "metric", "direction", "n_trials", "seeds", "sampler", "sampler_options", "pruner",
    "pruner_options", "retries", "seed", "storage", "figures", "scales",
)  # fmt: skip
MERGED = ("space", "set", "sampler_options", "pruner_options")


class Optuna(Sweeper):
    """Hydra sweeper that asks Optuna for trials.

    Args:
        settings: the keys of conf/hydra/sweeper/optuna.yaml.
    """

    def __init__(self, **settings: Any):
        self.form = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hear from Hydra what is swept."""
        self.context: HydraContext = hydra_context
        self.master: DictConfig = config

    def sweep(self, arguments: list[str]) -> None:
        """Carry the search on up to its total.

        Raises:
            kdexp.common.problems.ConfigError: something must change first; nothing was written.
            SystemExit: code 1, some trials failed.
            kdexp.launch.base.Interrupted: a person stopped it.
        """
        try:
            launcher = make_launcher(OmegaConf.to_container(self.master.hydra.launcher, resolve=True))  # type: ignore[arg-type]
            plan = _Plan(self.context.config_loader, self.master, self.form, arguments)
            runtime = plan.raw["runtime"]
            problems = launcher.problems(frozenset({str(runtime["device"])}), int(runtime["devices"]))
            problems += unbudgeted(self.master)
            if problems:
                raise ConfigError(problems)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError([str(error)]) from error
        if bool(self.master.get("dry")) or self.master.get("plan") == "show":
            report.show(plan.folder, plan.settings, plan.space)
            return
        self._carry_out(plan, launcher)

    def _carry_out(self, plan: _Plan, launcher: Launcher) -> None:
        try:
            search = Search(plan.folder, plan.settings, plan.space, plan.lookup)
            search.same_science({**science(plan.raw), **plan.pinned})
        except ValueError as error:
            raise ConfigError([str(error)]) from error
        began, each = time.time(), max(1, len(plan.settings.seeds))
        command = study.command()
        about = (plan.folder.name, str(self.master.get("scale", "full")), command)
        done = sum(trial.state.is_finished() for trial in search.trials())
        board = Board(max(search.total, done) * each, done * each)
        runtime = plan.raw["runtime"]
        wanted = frozenset({str(runtime["device"])})
        source = Trials(search, plan.make, about, board, wanted, int(runtime["devices"]))
        try:
            source.write()
            if source:
                with following(plan.folder, plan.raw.get("tracking") or {"enabled": False}):
                    launcher.serve(source, board)
        except Interrupted:
            board.close()
            report.summary(search, time.time() - began, command)
            raise
        finally:
            board.close()
            search.close()
        report.summary(search, time.time() - began, command)
        report.analysis(search, bool(self.form.get("figures", True)))
        if report.failed(search):
            raise SystemExit(1)


class _Plan:
    """What is searched, how, and the configuration around it: everything checked, nothing written yet.

    Attributes:
        settings, space: see :mod:`kdexp.sweep.search.optimise` and :mod:`kdexp.sweep.search.space`.
        raw: the configuration that the fixed settings alone make, which need not be whole.
        folder: the study's.
    """

    def __init__(self, loader: Any, master: DictConfig, form: Mapping[str, Any], arguments: list[str]):
        refused = experiment_sweep(arguments)
        if refused:
            raise ValueError(refused)
        self.form = _form(form, str(master.get("scale", "full")))
        parser = OverridesParser.create(config_loader=loader)
        command, intervals = _command(parser, arguments)
        self.space = spaces.read(self.form.get("space") or {}, command, intervals, parser.parse_override)
        if not self.space:
            raise ValueError(
                "hydra.sweeper.space is empty: say what is searched, such as "
                "recipe.learning_rate: {low: 1e-5, high: 1e-3, log: true}."
            )
        self.settings = search_settings.read(self.form)
        fixed = {bare(key): one(key, value) for key, value in (self.form.get("set") or {}).items()}
        searched = {dimension.key for dimension in self.space}
        self.fixed = {
            k: t
            for k, t in {**fixed, **{k: t[0] for k, t in command.items() if len(t) == 1}}.items()
            if k not in searched
        }
        self.exclusions: list[Exclusion] = [
            exclusion(item, "hydra.sweeper.exclude") for item in self.form.get("exclude") or []
        ]
        self.builder = Builder(loader, master)
        composed = self.builder.composer.compose(list(self.fixed.values()))
        self.raw, self._choices = probes.pin_models(resolve(composed.config))[0], composed.choices
        self.folder = Path(ROOT) / str(self.raw["study"])
        self._check()

    def make(self, values: Mapping[str, Any]) -> RunSpec:
        """Return the run of some values.

        Raises:
            kdexp.sweep.search.trials.LeftOut: they are excluded, or cannot work.
        """
        self.builder.refused.clear()
        self.builder.excluded = {id(exclusion): 0 for exclusion in self.exclusions}
        combination = Combination({**self.fixed, **spaces.overrides(values)}, self.exclusions)
        point = self.builder.point(combination)
        if point is None:
            reasons = list(self.builder.refused) or [e.reason for e in self.exclusions if self.builder.excluded[id(e)]]
            raise LeftOut(" ".join(reasons))
        return point

    @property
    def pinned(self) -> dict[str, Any]:
        """Which commit of the hub the fixed teacher is: trials of another one are not mixed with these."""
        commit = self.raw["teacher"].get("commit")
        return {"teacher.commit": commit} if commit else {}

    def lookup(self, key: str) -> Any:
        """Return what the fixed part of the configuration has under a group or key (for conditions)."""
        if key in self._choices:
            return self._choices[key]
        value: Any = self.raw
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise ValueError(
                    f"hydra.sweeper.space: the condition on {key} names neither a group nor a key of the configuration."
                )
            value = value[part]
        return value

    def _check(self) -> None:
        """Compose every choice once: a misspelt name is found now, and what works in no way at all."""
        wrong, fine = [], 0
        examples = spaces.examples(self.space)
        complaints: list[list[str]] = []
        for example in examples:
            overrides = [*self.fixed.values(), *spaces.overrides(example).values()]
            try:
                _, found = spec.prepare(self.builder.composer.compose(overrides).config)
            except ValueError as error:
                wrong.append(str(error))
                continue
            fine += not found
            complaints.append(found)
        if not wrong and not fine:
            wrong = [text for text in complaints[0] if all(text in found for found in complaints)] or complaints[0]
        last = self.raw.get("selection") == "last"
        if "score" in self.settings.metrics and last:
            wrong.append(
                "hydra.sweeper.metric=score is the score on the split that selects, and selection=last has none: "
                "use selection=heldout."
            )
        if (
            any(m.startswith("scores.validation") for m in self.settings.metrics)
            and self.raw.get("selection") != "validation"
        ):
            wrong.append(
                "hydra.sweeper.metric: a search on scores.validation would fit the reported scores; use score, or say "
                "selection=validation."
            )
        if wrong:
            raise ConfigError(list(dict.fromkeys(wrong)))
        self.lookups_work()

    def lookups_work(self) -> None:
        """Look at every condition once, so that a misspelt one is found now."""
        searched = {dimension.key for dimension in self.space}
        for dimension in self.space:
            for key in dimension.when:
                if key not in searched:
                    self.lookup(key)


def _form(form: Mapping[str, Any], scale: str) -> dict[str, Any]:
    """Return the settings of a scale: mappings are merged key by key (null removes one), the rest is replaced."""
    _known(form, "hydra.sweeper")
    base = {key: copy.deepcopy(value) for key, value in form.items() if key != "scales"}
    scales = form.get("scales") or {}
    if scale == "full":
        return base
    if scale not in scales:
        raise ValueError(f"scale={scale}: this study has no such form; it knows {', '.join(['full', *scales])}.")
    over = scales[scale] or {}
    _known(over, f"hydra.sweeper.scales.{scale}")
    for key, value in over.items():
        base[key] = {**(base.get(key) or {}), **value} if key in MERGED else copy.deepcopy(value)
    return base


def _known(form: Mapping[str, Any], where: str) -> None:
    for key in form:
        if key not in SETTINGS:
            hint = (
                " It belongs to hydra/sweeper=grid; here it is space."
                if key in ("params", "zip", "union")
                else near(key, SETTINGS)
            )
            raise ValueError(f"{where}.{key} is unknown.{hint} Known keys: {', '.join(SETTINGS)}.")


def _command(parser: Any, arguments: list[str]) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Split the command line into discrete values by key and continuous sweeps."""
    command: dict[str, list[str]] = {}
    intervals: dict[str, Any] = {}
    for override in parser.parse_overrides(arguments):
        key = bare(override.get_key_element())
        if override.is_sweep_override() and not override.is_discrete_sweep():
            intervals[key] = override
            continue
        command[key] = override_values(override)
        if key in UNSWEPT and len(command[key]) > 1:
            raise ValueError(f"{override.input_line}: {key} belongs to the whole study; give it one value.")
    return command, intervals
