"""Settings that a task has no use for: two runs that differ in nothing else are one run.

A temperature softens a distribution over classes; a score has none. In a grid over tasks of both kinds such a setting
is varied all the same: for a score it is put back to its default, said once, and equal runs are merged.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from kdexp.check import unlabelled
from kdexp.common.registry import build, target
from kdexp.config.schema import Config, Recipe


@cache
def _parameters(taker: type) -> Mapping[str, inspect.Parameter]:
    """Return a class's parameters, once for all points of a grid."""
    return inspect.signature(taker).parameters


def settled(config: Config) -> tuple[Config, list[str]]:
    """Return a checked configuration with settings put back that have no effect, and a sentence for each of them."""
    head, task = build(config.task).head, config.task["name"]
    config, notes = _recipes(config)
    config, ignored = unlabelled.settled(config)
    notes += ignored
    phases: dict[str, dict[str, Any]] = {}
    for phase in ("intermediate", "prediction"):
        terms = phases[phase] = {}
        for name, spec in getattr(config.objective, phase).items():
            taken = _parameters(target(spec))
            idle = [key for key, given in target(spec).softened_by.items() if given in head.unused and key in spec]
            terms[name] = {**spec, **{key: taken[key].default for key in idle}}
            notes += [
                f"objective.{phase}.{name}.{key}={spec[key]} has no effect with task={task}, whose answer is no "
                f"distribution over classes: taken as {terms[name][key]}."
                for key in idle
                if spec[key] != terms[name][key]
            ]
    return config.model_copy(update={"objective": config.objective.model_copy(update=phases)}), notes


def _recipes(config: Config) -> tuple[Config, list[str]]:
    """Put settings of both recipes back that mean nothing to the task's data; a note where they were changed."""
    task, notes = build(config.task), []
    default = {key: Recipe.model_fields[key].default for key in task.idle}
    for name, recipe in (("recipe", config.recipe), ("teacher.recipe", config.teacher.recipe)):
        notes += [
            f"{name}.{key}={getattr(recipe, key)} has no effect with task={task.name}, which has {task.reads}: taken "
            f"as {value}."
            for key, value in default.items()
            if getattr(recipe, key) != value
        ]
    if not notes:
        return config, []
    teacher = config.teacher.model_copy(update={"recipe": config.teacher.recipe.model_copy(update=default)})
    return config.model_copy(update={"recipe": config.recipe.model_copy(update=default), "teacher": teacher}), notes
