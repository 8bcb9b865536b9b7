"""A teacher that has no weights yet: pretrained on raw text as a stage, shared by all that it will teach.

``teacher.pretrain`` has the groups of a student that is distilled on raw text (:mod:`kdexp.methods.agnostic`), and the
stage is just that, with the teacher's sizes and nobody who teaches. Whoever wants the teacher's weights afterwards
takes them from the stage's result, as from any folder.
"""

from __future__ import annotations

from dataclasses import replace

from kdexp.common.registry import target
from kdexp.config.resolve import sizes
from kdexp.config.schema import Config, Teacher
from kdexp.methods.base import Facts, method, terms
from kdexp.models import build as models
from kdexp.models import source

NAME = "teacher.pretrain"
METHOD = "agnostic"


def wanted(config: Config) -> bool:
    """Tell whether a run's teacher has to be pretrained first."""
    return config.teacher.pretrain is not None


def alone(config: Config) -> Config:
    """Return the configuration of a run in which a teacher is what is trained: as a student, with nobody who teaches.

    What stands for a teacher there gives tokenizer and architecture, and is as large as its folder says.
    """
    teacher = config.teacher
    assert teacher.pretrain is not None
    told = {"pretrain": None, "finetune": True, **sizes({"source": teacher.source})}
    changes = {"teacher": teacher.model_copy(update=told), "student": models.as_student(teacher)}
    return config.model_copy(update={**changes, "init": dict(teacher.pretrain)})


def inside(config: Config) -> Config | None:
    """Return the configuration of the stage itself; None if too much is wrong to tell."""
    return method(METHOD).inside(alone(config))


def problems(config: Config) -> list[str]:
    """Say what is wrong with the groups of the stage, but for what :func:`inside` shows."""
    if not source.from_scratch(config.teacher.source):
        return [
            f"teacher.pretrain makes the weights of teacher={config.teacher.name}, and teacher.source="
            f"{config.teacher.source} has some: use teacher.source={source.SCRATCH}{config.teacher.source}, or "
            "teacher.pretrain=null."
        ]
    found = [text.replace("init.", f"{NAME}.") for text in method(METHOD).problems(alone(config))]
    inner = None if found else inside(config)
    for name, recipe in (("recipe", config.recipe), ("teacher.recipe", config.teacher.recipe)):
        if inner is not None and recipe.max_length > inner.recipe.max_length:
            found.append(
                f"{name}.max_length={recipe.max_length} is more than the {inner.recipe.max_length} tokens that teacher="
                f"{config.teacher.name} is pretrained on: raise {NAME}.recipe.max_length, or lower it."
            )
    for name, spec in ({} if inner is None else terms(inner, "prediction")).items():
        if isinstance(spec.get("_target_"), str) and target(spec).uses_teacher:
            found.append(
                f"{NAME}.objective.prediction.{name} listens to a teacher, and nobody teaches one that starts from "
                f"scratch: use objective@{NAME}.objective=agnostic_mlm."
            )
    return found


def first(config: Config, facts: Facts) -> Facts:
    """Return what a run's stages are made of, where its teacher is pretrained first; as it is, where it is not."""
    if not wanted(config):
        return facts
    made = method(METHOD).init_stage(alone(config), facts, None)
    stage = replace(made, name=NAME)
    return replace(facts, origin=f"{source.STAGE}{stage.key}", before=(stage,))


def made(config: Config, source: str) -> Teacher:
    """Return a configuration's teacher as the stage has made it; ``source`` names its result."""
    return config.teacher.model_copy(update={"source": source, "pretrain": None})
