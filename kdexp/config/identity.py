"""What a run is: the settings that decide it, its hash, its names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kdexp.common import names
from kdexp.common.redact import printable
from kdexp.common.registry import by_name
from kdexp.config.schema import Config

SCHEMA = 3
"""Raised by hand when the meaning of the code or of a key changes, so that older results are not taken for newer ones.

1: until the packages of the second house; classes were known by their paths.
2: classes, methods and actions are known by their registered names.
3: one rule for layers where depths do not divide; the last layer for the first token only, batches as wide as their
   longest text; Pro-KD's parts under one schedule; new keys of recipes.
"""

ROOT = "multirun"
"""Folder of all studies."""

SCIENCE = ("teacher", "student", "init", "mapping", "objective", "task", "recipe", "data", "selection", "seed")
"""Groups that decide what a run is; together with runtime.dtype they are its identity."""

PLACES = {"data": {"root", "cache"}, "teacher": {"commit"}, "init": {"commit"}, "task": {"hub_commit"}}
"""Keys of those groups that say where something lies, and decide nothing, or that were filled in by asking the hub:
what a revision stands for is a content, and so in the keys of stages."""

LATER = {"limit_validation", "unlabelled"}
"""Keys of a task that came when runs had been made without them: as null they are what those were, and not written."""

LABELS = ("teacher", "student", "objective", "mapping", "init", "task")
"""Groups that tables name a run by."""


def digest(value: Any) -> str:
    """Return the sha256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def deciding(task: dict[str, Any], places: Collection[str]) -> dict[str, Any]:
    """Return the settings of a task that decide a result: no places, nothing of :data:`LATER` that is not used."""
    return {key: value for key, value in task.items() if key not in places and not (value is None and key in LATER)}


def science(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that decides what a run is: no places, classes by their registered names.

    Args:
        config: a whole configuration as plain values.
    """
    settings = by_name({group: config[group] for group in SCIENCE})
    for group, keys in PLACES.items():
        settings[group] = {key: value for key, value in settings[group].items() if key not in keys}
    settings["task"] = deciding(settings["task"], PLACES["task"])
    settings["init"] = _unplaced(settings["init"])
    if settings["teacher"].get("pretrain"):
        settings["teacher"] = {**settings["teacher"], "pretrain": _unplaced(settings["teacher"]["pretrain"])}
    pairs = settings["task"].get("pairs")
    if isinstance(pairs, dict):  # data beside a task's own
        settings["task"]["pairs"] = deciding(pairs, PLACES["task"])
    others = settings["objective"].get("others")
    if isinstance(others, dict):  # further teachers
        kept = {n: {key: v for key, v in one.items() if key not in PLACES["teacher"]} for n, one in others.items()}
        settings["objective"] = {**settings["objective"], "others": kept}
    return {**settings, "dtype": config["runtime"]["dtype"]}


def _unplaced(node: dict[str, Any]) -> dict[str, Any]:
    """Return the groups of a stage on raw text without what was filled in of its texts, if it has any."""
    if not isinstance(node.get("task"), dict):
        return node
    return {**node, "task": deciding(node["task"], PLACES["task"])}


def run_id(science_settings: dict[str, Any]) -> str:
    """Return the sha256 (hex) of a run's science: the same science is the same run."""
    return digest({"schema": SCHEMA, **science_settings})


def label(config: Config, group: str) -> str:
    """Return a group's short name for tables: ``l3_sps2`` for shared parameters, ``kd_ft`` for a fine-tuned start."""
    chosen = getattr(config, group)
    return _label(group, chosen if isinstance(chosen, dict) else vars(chosen))


def _label(group: str, settings: Mapping[str, Any]) -> str:
    name = str(settings.get("name") or "none")
    if group == "student" and settings.get("sharing", "none") not in ("none", *name.split("_")):
        name += f"_{settings['sharing']}"
    return f"{name}_ft" if group == "objective" and settings.get("start") == "fine_tuned" else name


def labels(config: Config) -> dict[str, str]:
    """Return the short names of all groups of :data:`LABELS`."""
    return {group: label(config, group) for group in LABELS}


def named(config: Mapping[str, Any]) -> dict[str, str]:
    """Return :func:`labels` of a configuration of plain values, such as a run has saved, for the groups that it has."""
    return {group: _label(group, config[group]) for group in LABELS if isinstance(config.get(group), dict)}


def name_problems(config: Config) -> list[str]:
    """Return what is wrong with the names of a configuration (:mod:`kdexp.common.names`)."""
    given: dict[str, Any] = {}
    for group in LABELS:
        chosen = getattr(config, group)
        given[f"{group}.name"] = chosen.get("name") if isinstance(chosen, dict) else chosen.name
    for phase in ("intermediate", "prediction"):
        given |= {f"objective.{phase}.{term}": term for term in getattr(config.objective, phase)}
    texts = {"study": names.study_problem(config.study)} | {key: names.problem(name) for key, name in given.items()}
    given["study"] = config.study
    problems = [f"{key}={given[key]!r} {text}" for key, text in texts.items() if text]
    classes = config.task.get("label_names")
    problems += [
        f"task.label_names: {name!r} is empty or holds control characters; give the class a name that can be read."
        for name in (classes if isinstance(classes, list) else [])  # another type is named with the other settings
        if isinstance(name, str) and (not name.strip() or printable(name) != name)
    ]
    other = None if texts["study"] else names.twin(config.study, Path(ROOT))
    if other is not None:
        problems.append(
            f"study={config.study!r} differs from the study {other!r} in upper case or accents only, which some "
            "machines cannot keep apart: use that name, or another one."
        )
    return problems


def run_name(config: Config, identity: str) -> str:
    """Return the name of a run's folder: readable parts and eight digits of its identity."""
    parts = "-".join(label(config, group) for group in ("task", "objective", "init"))
    return f"{parts}-s{config.seed}-{identity[:8]}"


def run_dir(study: str, name: str) -> Path:
    """Return a run's folder below ``multirun/<study>/``."""
    return Path(ROOT) / study / name
