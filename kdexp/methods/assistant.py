"""Teacher assistants: students of middling size learn first, then teach (Mirzadeh et al. 2020, arXiv 1902.03393)."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field

from kdexp.common.registry import build
from kdexp.config import schema
from kdexp.config.resolve import placed
from kdexp.config.schema import Config, Count, Depth, Group
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method
from kdexp.models import build as models
from kdexp.store.stage import Stage
from kdexp.train.phase import Phase, Summary
from kdexp.train.teachers import LiveTeacher


class Assistant(Group):
    """One entry of ``objective.assistants``: sizes of an assistant; null = the teacher's."""

    num_layers: Depth
    hidden_size: Count | None = None
    num_heads: Count | None = None
    intermediate_size: Count | None = None


class Settings(schema.Objective):
    """Group ``objective``."""

    assistants: Annotated[list[Assistant], Field(min_length=1)] = [Assistant(num_layers=4)]


class AssistantChain(Method):
    """Teacher, assistants from large to small, student: each learns from the one before, by the same objective."""

    Settings: ClassVar[type[schema.Objective]] = Settings

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        objective, found = config.objective, []
        if objective.schedule != "single" or objective.intermediate:
            found.append("objective.method=assistant hands on answers alone: use objective.schedule=single.")
        if not isinstance(objective, Settings):
            return found
        init, width = build(config.init), config.teacher.hidden_size
        if placed(config.init):
            found.append(
                f"objective.method=assistant makes assistants of other sizes by the student's init, and init="
                f"{init.name} is one checkpoint: use init=first or init=random."
            )
        for number, sizes in enumerate(objective.assistants, start=1):
            if init.copies and not init.narrows and sizes.hidden_size not in (None, width):
                found.append(
                    f"objective.assistants: number {number} is {sizes.hidden_size} wide, and init={init.name} copies "
                    f"layers of {width}: use init=importance (or slice, pca, svd), or leave its hidden_size out."
                )
            try:
                init.layers(sizes.num_layers, config.teacher.num_layers or sizes.num_layers)
            except ValueError as error:
                found.append(f"objective.assistants: number {number}: {error}")
        depths = [config.teacher.num_layers or 0, *(a.num_layers for a in objective.assistants)]
        depths.append(config.student.num_layers)
        if config.teacher.num_layers and any(low > high for high, low in pairwise(depths)):
            chain = " -> ".join(map(str, depths))
            found.append(
                f"objective.assistants: layers go {chain} from teacher to student; an assistant lies between "
                "the two: order them from large to small."
            )
        return found

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return the student's stage; its parents are the assistants', the first one's is the teacher's."""
        assert isinstance(config.objective, Settings)
        teacher = distill.teacher_stage(config, facts)
        terms, recipe = distill.phase_terms(config, "prediction"), distill.phase_recipe(config, "prediction")
        copied, last = distill.first_teacher(config, teacher), None
        for number, sizes in enumerate(config.objective.assistants, start=1):
            given = {key: value for key, value in sizes.model_dump().items() if value is not None}
            own = config.student.model_copy(update={**_as_teacher(config), **given, "sharing": "none"})
            smaller = config.model_copy(update={"student": own})
            if last is None:
                last = distill.training(
                    smaller, facts, f"assistant.{number}", "prediction", terms, recipe, teacher,
                    action="assistant.train_assistant", shared=True,
                )  # fmt: skip
            else:
                last = distill.training(
                    smaller, facts, f"assistant.{number}", "prediction", terms, recipe, copied,
                    action="assistant.train_assistant", shared=True, parents={"assistant": last},
                )  # fmt: skip
        assert last is not None
        start = distill.start_stage(config, facts, teacher)
        return distill.training(
            config, facts, "assistant.student", "prediction", terms, recipe, copied, start,
            action="assistant.train_student", parents={"assistant": last},
        )  # fmt: skip


def _as_teacher(config: Config) -> dict[str, int | None]:
    """Return the teacher's width."""
    keys = ("hidden_size", "num_heads", "intermediate_size")
    return {key: getattr(config.teacher, key) for key in keys}


def train_student(phase: Phase) -> Summary:
    """Train the run's student on its assistant's answers."""
    return _train(phase)


def train_assistant(phase: Phase) -> Summary:
    """Train an assistant of the sizes that its stage names."""
    sizes = type(phase.config.student).model_validate({"name": "assistant", **phase.settings["student"]})
    phase.config = phase.config.model_copy(update={"student": sizes})
    return _train(phase)


def _train(phase: Phase) -> Summary:
    model = phase.model()
    student = phase.student(model, used_rows=True)
    folder = phase.folder("assistant")
    if folder is None:
        teacher = phase.teacher(student)
    else:
        head = phase.goal.head
        answers = models.restore(folder, head).to(phase.context.device)
        teacher = LiveTeacher(answers, head, frozenset(), phase.context.cast)
    phase.train(student, teacher)
    phase.save(model)
    phase.measure(model)
    return phase.summary
