"""What cannot be compared where student and teacher read a text in other tokens; said before anything is loaded."""

from __future__ import annotations

from kdexp.common.registry import RESERVED, build
from kdexp.config.schema import Config
from kdexp.methods.base import method, terms
from kdexp.models import source
from kdexp.objectives.base import Objective
from kdexp.tasks.base import Task
from kdexp.train import reading


def problems(config: Config, task: Task, objective: bool) -> list[str]:
    """Return what is asked of two tokenizers that they cannot give; nothing where one of them is not here yet.

    Args:
        task: the run's, sound.
        objective: it is sound.
    """
    own = source.own(config)
    if own is None:
        return []
    try:
        both = reading.compared(config.teacher, own)
    except ValueError:  # said where each tokenizer is looked at
        return []
    if both is None or both.same:
        return []
    sides = f"teacher={config.teacher.name} reads {both.teacher}, and student={own.name} reads {both.student}"
    lay, found = method(config.objective.method), list[str]()
    if not task.by_example and not both.serves:
        found.append(
            f"task={task.name} cuts texts into examples by tokens, and {sides}: these are not the same examples; use "
            "a student that reads its teacher's tokens (init=first, or another init.source)."
        )
    elif task.by_example and not lay.joins:
        found.append(
            f"objective.method={config.objective.method} gives both models the same input, and {sides}: use an "
            "objective of the ordinary method (kd, hid_cls, ...), or another init.source."
        )
    if config.task.get("unlabelled") is not None:
        found.append(
            f"task.unlabelled={config.task['unlabelled']} is for students that read their teacher's tokens, and "
            f"{sides}: use null, or another init.source."
        )
    if both.alike or not objective:
        return found
    for phase in ("intermediate", "prediction"):
        for name, spec in terms(config, phase).items():
            term: Objective = build(spec, (*RESERVED, "pairs"))
            if term.uses_teacher and not term.joins():
                found.append(
                    f"objective.{phase}.{name} compares token by token, and {sides}: token n is not the same on both "
                    "sides. Objectives on answers, [CLS] and pooled vectors can be joined by example: kd, hid_cls, "
                    "patience, embed_distill, ...; or use another init.source."
                )
    return found
