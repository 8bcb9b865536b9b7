"""LGTM: a teacher that learns beside its student, steered by its influence on held-out rows (arXiv 2305.09651).

Each update, after the released code: the student takes a trial step towards the teacher; the gradient v of the hard
loss on held-out rows at that place tells which way the student should have gone; a finite difference of the teacher's
loss along v tells the teacher how to send it there. Then the teacher moves, and the student learns from it. What the
stage does is in :mod:`kdexp.methods.lgtm_step`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kdexp.common import machine
from kdexp.common.registry import build
from kdexp.config import schema
from kdexp.config.schema import Config, Group, Part, Temperature
from kdexp.heads.base import unanswered
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method
from kdexp.models.families.base import family
from kdexp.store.stage import Stage


class CoTeacher(Group):
    """``objective.co_teacher``: how the teacher learns."""

    start: Literal["pretrained", "finetuned"]
    a_t: Part
    temperature: Temperature
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    influence: bool
    epsilon: Annotated[float, Field(ge=1e-9, lt=1)]
    influence_rate: Literal["teacher", "student"]
    rows: Literal["train_split", "legacy_dev"]
    share: Annotated[float, Field(gt=0, lt=1)]
    zero_head: bool
    modes: Literal["released", "quiet"]


class Settings(schema.Objective):
    """Group ``objective``."""

    co_teacher: CoTeacher


class LGTM(Method):
    """One stage in which teacher and student learn together."""

    Settings: ClassVar[type[schema.Objective]] = Settings

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        problems, objective = [], config.objective
        if objective.schedule != "single":
            problems.append(f"objective.schedule={objective.schedule}: LGTM is one phase; use single.")
        lacking = unanswered(("classes",), build(config.task).head)  # the teacher's loss is a divergence
        if lacking:
            problems.append(f"objective=lgtm {lacking} (task={config.task.get('name')}): use kd.")
        if config.recipe.optimiser != "adamw":
            problems.append(
                f"recipe.optimiser={config.recipe.optimiser}: LGTM looks one step of AdamW ahead; use adamw."
            )
        if family(str(config.teacher.family)).batch_norm:
            problems.append(
                f"objective=lgtm with teacher={config.teacher.name}: LGTM runs both models several times an update, "
                "and their batch normalisation would count each; use kd, or an architecture without."
            )
        if not config.recipe.bias_correction:
            problems.append(
                "recipe.bias_correction=false: LGTM looks one step of AdamW ahead, with its correction; use true."
            )
        if config.runtime.devices > 1 or machine.launched() > 1:
            problems.append("objective=lgtm moves the teacher by whole batches: use runtime.devices=1.")
        if config.recipe.accumulation != 1:
            problems.append(
                f"recipe.accumulation={config.recipe.accumulation}: LGTM's teacher moves between micro-batches; use 1 "
                "and a smaller recipe.batch_size."
            )
        return problems

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return that stage; a fine-tuned teacher is its parent where something starts from it."""
        assert isinstance(config.objective, Settings)
        own = config.objective.co_teacher
        fine = own.start == "finetuned"
        teacher = distill.teacher_stage(config, facts) if fine or build(config.init).needs_teacher else None
        start = distill.start_stage(config, facts, teacher)
        terms, recipe = distill.phase_terms(config, "prediction"), distill.phase_recipe(config, "prediction")
        taught = teacher if fine or start is None else None
        return distill.training(
            config, facts, "lgtm", "prediction", terms, recipe, taught, start,
            action="lgtm_step.learn_together", more={"co_teacher": own.model_dump()},
        )  # fmt: skip
