"""ERNIE-Tiny's four stages (Su et al. 2021, arXiv 2106.02241), with stand-ins where the paper is not verified.

Each stage goes on from the one before and changes one of teacher, data and loss:

========================== =========== ============== ===============================
stage                      teacher     data           loss
========================== =========== ============== ===============================
general                    pretrained  general text   latent
general_enhanced           fine-tuned  general text   latent
task_adaptive              fine-tuned  task's text    latent
task_specific              fine-tuned  task's text    latent + soft and hard labels
========================== =========== ============== ===============================

Stand-ins, ours: the latent loss (unknown) is whatever ``objective.intermediate`` names, and the task's own text,
without its labels, takes the place of general text. So
``general_enhanced`` and ``task_adaptive`` do the same work twice.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from kdexp.config import schema
from kdexp.config.schema import Config, Group
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method
from kdexp.models.source import from_scratch
from kdexp.store.stage import Stage

Epochs = Annotated[int, Field(ge=0, le=100_000)] | None
"""Whole epochs; 0 leaves the stage out, null takes recipe.epochs."""


class Stages(Group):
    """``objective.stages``: epochs of the latent stages, in order."""

    general: Epochs = None
    general_enhanced: Epochs = None
    task_adaptive: Epochs = None


class Settings(schema.Objective):
    """Group ``objective``."""

    stages: Stages = Stages()


class ErnieTiny(Method):
    """Latent stages one after another, then soft and hard labels too."""

    Settings: ClassVar[type[schema.Objective]] = Settings

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        schedule, teacher = config.objective.schedule, config.teacher
        wrong = (
            [] if schedule == "joint" else [f"objective.schedule={schedule}: the last stage is one phase; use joint."]
        )
        if from_scratch(teacher.source):
            wrong.append(
                f"objective={config.objective.name} with teacher.source={teacher.source}: its first stage listens to "
                "the pretrained teacher, and one from scratch was never pretrained; choose another source or objective."
            )
        return wrong

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return the task-specific stage; its parents are the latent ones, in order."""
        assert isinstance(config.objective, Settings)
        teacher = distill.teacher_stage(config, facts)
        last = distill.start_stage(config, facts, teacher)
        terms, recipe = distill.phase_terms(config, "intermediate"), distill.phase_recipe(config, "intermediate")
        for name, epochs in config.objective.stages:
            if epochs == 0:
                continue
            own = recipe if epochs is None else recipe.model_copy(update={"epochs": epochs})
            before = name == "general"
            taught = distill.first_teacher(config, teacher) if before and last is None else None if before else teacher
            last = distill.training(
                config, facts, f"ernie_tiny.{name}", "intermediate", terms, own, taught, last,
                teaches="pretrained" if before else None,
            )  # fmt: skip
        terms, recipe = distill.phase_terms(config, "joint"), distill.phase_recipe(config, "joint")
        return distill.training(config, facts, "ernie_tiny.task_specific", "joint", terms, recipe, teacher, last)
