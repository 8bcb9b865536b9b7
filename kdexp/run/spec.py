"""A run before it is carried out: composed, typed, checked, identified and laid out, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kdexp.check import combinations, probes, unused
from kdexp.common.machine import decide_dtype
from kdexp.common.problems import ConfigError
from kdexp.common.registry import build
from kdexp.config import identity, schema
from kdexp.config.resolve import resolve, source_folder
from kdexp.config.schema import Config, Teacher
from kdexp.methods import base as methods
from kdexp.methods import pretraining
from kdexp.methods.base import Facts
from kdexp.models import source
from kdexp.store.stage import Stage

DEPTHLESS = (
    "student.num_layers=null is the depth of a checkpoint of the student's own, and none is named: add init=own "
    "init.source=..., or choose another student, such as student=l3."
)


@dataclass(frozen=True)
class RunSpec:
    """A grid point, or a single run: all that its configuration alone decides.

    Attributes:
        config: typed and checked.
        id: identity of its science (64 hex digits); the same science is the same run.
        name: the run's name, which is the name of its folder.
        run_dir: where the run lives.
        labels: short names for tables.
        science: the settings that ``id`` is the hash of.
        outline: its stages in order, under keys that stand for what the configuration says. No data, weights or
            machine were looked at, so they are not the store's keys; they tell which points share which stage.
        overrides: what made it, for people.
        trial: number of the trial of a search that it belongs to.
        notes: sentences about settings that have no effect on its task.
    """

    config: Config
    id: str
    name: str
    run_dir: Path
    labels: dict[str, str]
    science: dict[str, Any]
    outline: tuple[Stage, ...]
    overrides: tuple[str, ...] = ()
    trial: int | None = None
    notes: tuple[str, ...] = ()


def prepare(
    composed: DictConfig | dict[str, Any], overrides: Sequence[str] = (), trial: int | None = None
) -> tuple[RunSpec | None, list[str]]:
    """Make the spec of a composed configuration, or say everything that stops it.

    Args:
        composed: what Hydra composed, or a plain dictionary.
        overrides: what made it, for people.
        trial: number of the trial of a search that it belongs to.

    Returns:
        The spec, or None and the problems. Nothing is loaded; the hub is asked what its sources are, once a process
        for each (:mod:`kdexp.check.probes`).
    """
    return prepare_resolved(resolve(composed), overrides, trial)


def prepare_resolved(
    raw: dict[str, Any],
    overrides: Sequence[str] = (),
    trial: int | None = None,
    checked: dict[str, list[str]] | None = None,
) -> tuple[RunSpec | None, list[str]]:
    """As :func:`prepare`, for a configuration whose dependent values are filled in already.

    Args:
        checked: what the caller's other points were found to have wrong with them, by all that the checks look at; it
            is added to. Points of a grid that differ by their seed alone are checked once.
    """
    raw, away = probes.pin_models(raw)
    raw, others_away = probes.pin_others(raw)
    away += others_away
    config, problems = typed(raw)
    if config is None:
        told = [DEPTHLESS if text.startswith("student.num_layers=None ") else text for text in problems]
        return None, told + _further(raw, problems) + away
    problems = _problems(config, {} if checked is None else checked) + away
    if not problems:
        config, problems = probes.pin_data(config)
    if problems:
        return None, problems
    config, notes = unused.settled(config)
    return replace(_spec(config, tuple(overrides), trial), notes=tuple(notes)), []


def _problems(config: Config, checked: dict[str, list[str]]) -> list[str]:
    """Check a configuration, unless one that differs by its seed alone was checked before."""
    looked_at = config.model_dump_json(exclude={"seed"})
    if looked_at not in checked:
        checked[looked_at] = combinations.problems(config)
    return list(checked[looked_at])


def _further(raw: dict[str, Any], problems: list[str]) -> list[str]:
    """Look for problems of combinations beside values that are wrong by themselves; what touches those is left out."""
    try:
        rest = schema.mended(raw, methods.method(str(raw["objective"].get("method") or "distill")).Settings)
        found = [] if rest is None else combinations.problems(rest)
    except (ValueError, KeyError, AttributeError, TypeError):  # too little is left to say more
        return []
    wrong = [text.partition("=")[0].partition(" ")[0] for text in problems]
    return [text for text in found if not any(key in text for key in wrong)]


def typed(raw: dict[str, Any]) -> tuple[Config | None, list[str]]:
    """Make the typed configuration of plain values, with the keys that its method adds; or say what is wrong."""
    objective = raw.get("objective")
    try:
        wanted = objective.get("method") if isinstance(objective, dict) else None
        settings = methods.method(wanted if isinstance(wanted, str) and wanted else "distill").Settings
    except ValueError as error:
        others = [text for text in schema.parse(raw)[1] if not text.startswith("objective.")]
        return None, [str(error), *others]
    return schema.parse(raw, settings)


def restore(raw: dict[str, Any], overrides: Sequence[str] = ()) -> RunSpec:
    """Make a spec again that was checked before and came as plain values (JSON) from another machine.

    Raises:
        ConfigError: it was made by another version of kdexp.
    """
    config, problems = typed(raw)
    if config is None:
        raise ConfigError(problems)
    return _spec(config, tuple(overrides), None)


def make(composed: DictConfig | dict[str, Any], overrides: Sequence[str] = ()) -> RunSpec:
    """Make the spec of a configuration that has to work.

    Raises:
        ConfigError: with everything that must change first.
    """
    spec, problems = prepare(composed, overrides)
    if spec is None:
        raise ConfigError(problems)
    return spec


def _spec(config: Config, overrides: tuple[str, ...], trial: int | None) -> RunSpec:
    settings = identity.science(config.model_dump())
    run_id = identity.run_id(settings)
    name = identity.run_name(config, run_id)
    return RunSpec(
        config, run_id, name, identity.run_dir(config.study, name), identity.labels(config), settings,
        tuple(methods.stages(config, said(config))), overrides, trial,
    )  # fmt: skip


def said(config: Config) -> Facts:
    """Return stand-ins for contents: what the configuration says of data, weights and arithmetic."""
    data = identity.digest([config.task, config.data.root])
    own = source.own(config)
    mine = "" if own is None else f"{own.source}@{own.revision}"
    further = str(config.task["unlabelled"]) if build(config.task).has_further else None
    known = Facts(
        data, _named(config), config.runtime.dtype, lambda other: said(other).data,
        origin_of=_named, own=mine, further=further,
    )  # fmt: skip
    return pretraining.first(config, known)


def _named(config: Config) -> str:
    """Return a stand-in for the identity of a teacher's weights."""
    return f"{config.teacher.source}@{config.teacher.revision}"


def unknown(config: Config) -> list[str]:
    """Say what of a run's contents only the network could tell: then :func:`facts` would ask it."""
    task, teacher = build(config.task), config.teacher
    missing = []
    if source_folder(teacher.source) is None and teacher.commit is None:
        missing.append(f"which commit of {teacher.source} is the teacher")
    own, pretrain = source.own(config), config.teacher.pretrain
    if own is not None and source_folder(own.source) is None and own.commit is None:
        missing.append(f"which commit of {own.source} is the student")
    if not task.here(config.data.root, cache_of(config)):
        missing.append(f"the data of task={task.name}")
    if pretrain is not None and not build(pretrain["task"]).here(config.data.root, cache_of(config)):
        missing.append(f"the texts that teacher={teacher.name} is pretrained on")
    if "task" in config.init and not build(config.init["task"]).here(config.data.root, cache_of(config)):
        missing.append(f"the texts of init={config.init['name']}")
    return missing


def facts(config: Config, cache: Path | None = None) -> Facts:
    """Look at the data, the weights and the machine that a configuration names.

    Args:
        cache: where the data's fingerprint is remembered; None = beside the store.
    """
    task, own = build(config.task), source.own(config)
    place = cache or cache_of(config)
    known = Facts(
        _fingerprint(task, config.data.root, place),
        _weights(config.teacher),
        decide_dtype(config.runtime.dtype, config.runtime.device),
        lambda other: _fingerprint(build(other.task), other.data.root, place),
        origin_of=lambda other: _weights(other.teacher),
        own="" if own is None else _weights(own),
        further=task.further(config.data.root, place),
    )
    return pretraining.first(config, known)


def _weights(model: Teacher) -> str:
    """Return what identifies a model's weights."""
    folder = source_folder(model.source)
    stamp = tuple(sorted((p.name, p.stat().st_mtime_ns) for p in folder.glob("*"))) if folder else ()
    return _origin(model.source, model.commit or model.revision, model.sha256, model.place, stamp)


def cache_of(config: Config) -> Path:
    """Return the folder beside the store where what is costly to make is kept."""
    return Path(config.runtime.store).expanduser().absolute() / "cache"


@lru_cache(maxsize=64)
def _origin(where: str, commit: str | None, sha256: str | None, place: str, stamp: tuple[Any, ...]) -> str:
    """Hash a folder's files once for all runs of a process; ``stamp`` changes with them."""
    return source.origin(where, commit, sha256, place)


_FINGERPRINTS: dict[str, str] = {}


def _fingerprint(task: Any, root: str | None, cache: Path) -> str:
    name = f"{task!r}@{Path(root).absolute() if root else None}"
    if name not in _FINGERPRINTS:
        _FINGERPRINTS[name] = task.fingerprint(root, cache)
    return _FINGERPRINTS[name]
