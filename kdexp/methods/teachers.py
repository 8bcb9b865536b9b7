"""Several teachers of any architecture and vocabulary: each is a stage of its own, and their answers are combined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import ValidationError

from kdexp.common.registry import build, target
from kdexp.config import schema
from kdexp.config.resolve import sizes
from kdexp.config.schema import Config, Teacher, Weight
from kdexp.heads.base import unanswered
from kdexp.heads.classification import LABEL
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method, terms
from kdexp.methods.ensemble import combined
from kdexp.store.stage import Stage
from kdexp.train import evaluate
from kdexp.train.phase import Phase, Summary
from kdexp.train.teachers import CachedTeacher

SIZES = ("num_layers", "hidden_size", "num_heads", "intermediate_size", "vocab_size")
HARD = {"finetune": {"_target_": "kdexp.objectives.finetune.Finetune"}}


class Settings(schema.Objective):
    """Group ``objective``."""

    others: dict[str, dict[str, Any]] = {}
    combine: Literal["mean", "weighted", "best"] = "mean"
    weights: list[Weight] | None = None


class Teachers(Method):
    """One phase on one answer of the run's teacher and of others, looked up by example, so that no token is shared."""

    Settings: ClassVar[type[schema.Objective]] = Settings

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        objective, task = config.objective, build(config.task)
        lacking = unanswered(("examples",), task.head)
        if lacking:
            return [f"objective.method=teachers {lacking} (task={task.name}): use objective=kd."]
        wrong = []
        if objective.schedule != "single" or objective.intermediate:
            wrong.append("objective.method=teachers combines answers alone: use objective.schedule=single.")
        wrong += [
            f"objective.prediction.{name} reads a teacher's {' and '.join(target(spec).needs)}, and several teachers "
            "have answers in common, no more: use terms on answers, such as kd."
            for name, spec in terms(config, "prediction").items()
            if target(spec).needs and target(spec).uses_teacher
        ]
        if not task.fixed:
            wrong.append(
                f"task={task.name} draws its examples anew in each epoch, and answers of teachers with inputs of their "
                "own are looked up by example: use objective=ensemble."
            )
        if not isinstance(objective, Settings):
            return wrong
        if not objective.others:
            wrong.append(
                "objective.others is empty: name a second teacher, such as +teacher@objective.others.b=bert_base (or "
                "take objective=kd)."
            )
        wrong += _untyped(config, objective) or _twice(config)
        one = "classes" in task.head.abilities or (task.head.width == 1 and "decisions" not in task.head.abilities)
        if objective.combine == "best" and not one:
            wrong.append(
                f"objective.combine=best takes the teacher nearest to an example's class or score, and the head "
                f"{task.head.name} (task={task.name}) has neither: use mean or weighted."
            )
        return wrong + _unweighted(objective)

    def beside(self, config: Config) -> dict[str, Config]:
        """Return the configurations of the other teachers' stages, by the keys that they stand at."""
        objective = config.objective
        if not isinstance(objective, Settings) or _untyped(config, objective):
            return {}
        return {f"objective.others.{name}": other for name, other in others(config).items()}

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return the student's phase; its parents are the teachers, of which an init copies the run's."""
        assert isinstance(config.objective, Settings)
        parents = {}
        for name, other in others(config).items():
            known = replace(facts, origin=facts.origin_of(other))
            stage = distill.teacher_stage(other, known)
            parents[_role(name)] = replace(stage, name=f"teacher.{name}", role="", config=other)
        teacher = distill.teacher_stage(config, facts)
        start = distill.start_stage(config, facts, teacher)
        settings = config.objective.model_dump(include={"combine", "weights"})
        return distill.training(
            config, facts, "teachers.student", "prediction", distill.phase_terms(config, "prediction"),
            distill.phase_recipe(config, "prediction"), teacher, start,
            action="teachers.train_student", parents=parents, more={"teachers": settings},
        )  # fmt: skip


def _role(name: str) -> str:
    return f"teacher.{name}"


def _untyped(config: Config, objective: Settings) -> list[str]:
    """Say what is wrong with the groups of the other teachers."""
    wrong = []
    for name, given in objective.others.items():
        try:
            _teacher(given, config)
        except ValidationError as error:
            wrong += schema.sentences(error, Teacher, f"objective.others.{name}")
    return wrong


def _twice(config: Config) -> list[str]:
    """Refuse a teacher that is one of the others under another name."""
    known, wrong = [("teacher", config.teacher)], []
    for name, other in others(config).items():
        same = [
            who for who, teacher in known if teacher.model_copy(update={"name": other.teacher.name}) == other.teacher
        ]
        wrong += [
            f"objective.others.{name} is the same teacher as {who}: give it another seed or source." for who in same
        ]
        known.append((f"objective.others.{name}", other.teacher))
    return wrong


def _teacher(given: dict[str, Any], config: Config) -> Teacher:
    """Return the group of another teacher; it learns by the run's ``teacher.recipe`` unless it has one of its own."""
    known = {key: value for key, value in sizes(given).items() if given.get(key) is None}
    recipe = given.get("recipe", config.teacher.recipe.model_dump())
    if isinstance(recipe, dict):
        recipe = {key: value for key, value in recipe.items() if key != "per_task"}  # looked up by a resolver before
    return Teacher.model_validate({**given, **known, "recipe": recipe})


def others(config: Config) -> dict[str, Config]:
    """Return the configuration that each other teacher is fine-tuned with, in the order of their names.

    Its student is the teacher itself: what cannot be true of a teacher is then said as of any run.
    """
    assert isinstance(config.objective, Settings)
    found, alone = {}, schema.Objective(name="finetune", schedule="single", prediction=HARD)
    for name, given in sorted(config.objective.others.items()):
        teacher = _teacher(given, config)
        shape = {"name": teacher.name, **{key: getattr(teacher, key) for key in SIZES}}
        shape["num_layers"] = teacher.num_layers or 1  # of unknown depth: the check of the teacher says so
        changes = {
            "teacher": teacher,
            "student": schema.Student(**shape),
            "objective": alone,
            "init": {"_target_": "kdexp.inits.random.Random", "name": "random"},
            "mapping": {"name": "auto"},
        }
        found[name] = config.model_copy(update=changes)
    return found


def _unweighted(objective: Settings) -> list[str]:
    """Say what is wrong with the weights."""
    given, count = objective.weights, 1 + len(objective.others)
    if (objective.combine == "weighted") != (given is not None):
        return [
            f"objective.combine={objective.combine} with objective.weights={given}: weights and weighted go together."
        ]
    if given is not None and (len(given) != count or sum(given) <= 0):
        return [f"objective.weights={given}: one weight for each of the {count} teachers, not all 0."]
    return []


# --- what its stages do ----------------------------------------------------------------------------------------------


def train_student(phase: Phase) -> Summary:
    """Train the student on what all teachers say together."""
    model = phase.model()
    student = phase.student(model, used_rows=True)
    phase.train(student, _together(phase))
    phase.save(model)
    phase.measure(model)
    return phase.summary


def _together(phase: Phase) -> CachedTeacher:
    """Return the common answer, looked up by example.

    Raises:
        ValueError: one of the others does not beat the trivial answer, or its answers are not stored.
    """
    train, asked, said = phase.data()["train"], phase.settings["teachers"], []
    configs = {"teacher": phase.config, **{_role(name): other for name, other in others(phase.config).items()}}
    for role, config in configs.items():
        parent = phase.inputs[role]
        evaluate.floor(parent.summary, phase.task, config.teacher)
        length, everything = config.teacher.recipe.max_length, np.arange(len(train))
        stored = CachedTeacher.open(parent.folder, ["logits"], length, phase.context.device, everything)
        if stored is None:
            raise ValueError(f"{parent.folder} has no answers of teacher {config.teacher.name}: run it again")
        said.append(stored.features["logits"])
    labels = torch.as_tensor(np.array(train.targets[LABEL]), device=phase.context.device)
    return CachedTeacher({"logits": combined(said, labels, asked["combine"], asked["weights"])})
