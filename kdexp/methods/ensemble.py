"""Several teachers: the same teacher fine-tuned from other seeds, and one answer of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from kdexp.common.registry import build
from kdexp.config import schema
from kdexp.config.schema import Config, Group, Seed, Weight
from kdexp.heads.base import unanswered
from kdexp.heads.batch import Batch, Features
from kdexp.heads.classification import LABEL
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method
from kdexp.store.stage import Stage
from kdexp.train.phase import Phase, Summary
from kdexp.train.teachers import LiveTeacher


class Teachers(Group):
    """``objective.teachers``: who they are and how they agree."""

    seeds: Annotated[list[Seed], Field(min_length=2, max_length=16)] = [1, 2, 3]
    combine: Literal["mean", "weighted", "best"] = "mean"
    weights: list[Weight] | None = None


class Settings(schema.Objective):
    """Group ``objective``."""

    teachers: Teachers = Teachers()


class Ensemble(Method):
    """One phase on the common answer of several teachers."""

    Settings: ClassVar[type[schema.Objective]] = Settings

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        objective, found, head = config.objective, [], build(config.task).head
        lacking = unanswered(("examples",), head)
        if lacking:
            found.append(f"objective.method=ensemble {lacking} (task={config.task.get('name')}): use objective=kd.")
        if objective.schedule != "single" or objective.intermediate:
            found.append("objective.method=ensemble combines answers alone: use objective.schedule=single.")
        if not config.teacher.finetune:
            found.append(
                "objective.method=ensemble fine-tunes a teacher a seed, and with teacher.finetune=false all are one: "
                "set it to true, or take objective=kd."
            )
        if not isinstance(objective, Settings):
            return found
        asked = objective.teachers
        one = "classes" in head.abilities or (head.width == 1 and "decisions" not in head.abilities)
        if asked.combine == "best" and not lacking and not one:
            found.append(
                f"objective.teachers.combine=best takes the teacher nearest to an example's class or score, and "
                f"the head {head.name} (task={config.task.get('name')}) has neither: use mean or weighted."
            )
        if len(set(asked.seeds)) < len(asked.seeds):
            found.append(f"objective.teachers.seeds={asked.seeds}: the same teacher stands there twice; name others.")
        given = asked.weights
        if (asked.combine == "weighted") != (given is not None):
            found.append(
                f"objective.teachers.combine={asked.combine} with weights={given}: weights and weighted go together."
            )
        elif given is not None and (len(given) != len(asked.seeds) or sum(given) <= 0):
            found.append(
                f"objective.teachers.weights={given}: one weight for each of the {len(asked.seeds)} seeds, not all 0."
            )
        return found

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return the student's phase; its parents are the teachers, of which an init copies the first."""
        assert isinstance(config.objective, Settings)
        stages = {}
        for number, seed in enumerate(config.objective.teachers.seeds):
            own = config.model_copy(update={"teacher": config.teacher.model_copy(update={"seed": seed})})
            stages[f"teacher{number}"] = distill.teacher_stage(own, facts)
        first = stages.pop("teacher0")
        terms, recipe = distill.phase_terms(config, "prediction"), distill.phase_recipe(config, "prediction")
        start = distill.start_stage(config, facts, first)
        combined = config.objective.teachers.model_dump(exclude={"seeds"})
        return distill.training(
            config, facts, "ensemble.student", "prediction", terms, recipe, first, start,
            action="ensemble.train_student", parents=stages, more={"teachers": combined},
        )  # fmt: skip


def combined(logits: Sequence[Tensor], labels: Tensor | None, how: str, weights: Sequence[float] | None) -> Tensor:
    """One answer of several teachers, logits (B, C) each.

    Args:
        labels: (B,) classes, or scores where C is 1; needed by ``best``.
        how: ``mean`` of logits; ``weighted`` mean; ``best`` = of each example the teacher that is nearest to its label.
        weights: one a teacher, for ``weighted``.
    """
    stacked = torch.stack([x.float() for x in logits])
    if how == "mean":
        return stacked.mean(0)
    if how == "weighted":
        assert weights is not None
        shares = stacked.new_tensor(weights) / sum(weights)
        return (stacked * shares[:, None, None]).sum(0)
    assert labels is not None
    if stacked.shape[-1] == 1:
        wrong = (stacked[..., 0] - labels.float()).square()
    else:
        wrong = -stacked.log_softmax(-1).gather(2, labels.long().expand(len(stacked), -1)[..., None])[..., 0]
    return stacked.gather(0, wrong.argmin(0)[None, :, None].expand(1, -1, stacked.shape[-1]))[0]


def train_student(phase: Phase) -> Summary:
    """Train the student on what all teachers say together."""
    model = phase.model()
    student = phase.student(model, used_rows=True)
    phase.train(student, _together(phase))
    phase.save(model)
    phase.measure(model)
    return phase.summary


def _together(phase: Phase) -> Callable[[Batch], Features]:
    """Return a teacher that asks all of them."""
    head, asked = phase.goal.head, phase.settings["teachers"]
    others = sorted((role for role in phase.inputs if role[7:].isdigit()), key=lambda role: int(role[7:]))
    roles = ["teacher", *others]
    ask = [
        LiveTeacher(phase.teacher_model(phase.folder(role)), head, frozenset(), phase.context.cast) for role in roles
    ]

    def answer(batch: Batch) -> Features:
        said: list[Any] = [teacher(batch)["logits"] for teacher in ask]
        return {"logits": combined(said, batch.labels.get(LABEL), asked["combine"], asked["weights"])}

    return answer
