"""TED: filters on teacher and student first, then distillation through them (Liang et al. 2023, arXiv 2210.01351).

Stage I trains a filter and a small head on each matched layer of a frozen model: once for the teacher, once for the
student (fine-tuned before if ``objective.start=fine_tuned``). Stage II trains the student with both sides' filters.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch

from kdexp.common.registry import build, target
from kdexp.config import schema
from kdexp.config.schema import Config, Count, Epochs, Group, NotNegative, Rate, Share
from kdexp.heads.base import unanswered
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method, pairs
from kdexp.store.stage import Stage
from kdexp.train.phase import Phase, Summary

FILTERS = "filters.safetensors"
LEARNS = "kdexp.objectives.ted.TedFilters"


class Filters(Group):
    """``objective.filters``: stage I; null = the recipe of that model's fine-tuning."""

    epochs: Epochs | None = None
    steps: Count | None = None
    examples: Count | None = None
    batch_size: Count | None = None
    learning_rate: Rate | None = None
    warmup: NotNegative | None = None
    dropout: Share = 0.1
    backbone: Literal["eval", "train"] = "eval"


class Settings(schema.Objective):
    """Group ``objective``."""

    filters: Filters = Filters()


class Ted(Method):
    """Filters of both models, then the student through them."""

    Settings: ClassVar[type[schema.Objective]] = Settings
    unlabelled: ClassVar[bool] = True

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        lacking = unanswered(target({"_target_": LEARNS}).asks, build(config.task).head)
        if lacking:
            return [f"objective.method=ted {lacking} (task={config.task['name']}); on raw text use continual_ted."]
        return unfit(config)

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return stage II; its parents are the teacher, the student's start and the filters of both."""
        teacher = distill.teacher_stage(config, facts)
        start = distill.start_stage(config, facts, teacher)
        filters = {side: filter_stage(config, facts, side, teacher, start) for side in ("teacher", "student")}
        terms, recipe = distill.phase_terms(config, "joint"), distill.phase_recipe(config, "joint")
        parents = {f"{side}_filters": stage for side, stage in filters.items()}
        return distill.training(config, facts, "ted.match", "joint", terms, recipe, teacher, start, parents=parents)


def unfit(config: Config) -> list[str]:
    """Say what of an objective is not TED's."""
    problems, objective = [], config.objective
    if objective.schedule != "joint":
        problems.append(f"objective.schedule={objective.schedule}: TED's stage II is one phase; use joint.")
    if len(_matched(config)) != 1:
        problems.append(
            f"objective.method={objective.method} needs one term under objective.intermediate with "
            "teacher_filter=trained."
        )
    return problems


def _matched(config: Config) -> list[dict[str, Any]]:
    """Return the terms that match filters of stage I."""
    return [spec for spec in config.objective.intermediate.values() if spec.get("teacher_filter") == "trained"]


def filter_stage(
    config: Config, facts: Facts, side: str, teacher: Stage | None, start: Stage | None,
    learns: str = LEARNS,
) -> Stage:  # fmt: skip
    """Return stage I of one side: same recipe as that model's fine-tuning, but for what ``objective.filters`` says.

    The filters' width is that of stage II: the term's ``output``, or the teacher's width.

    Args:
        config, facts: of the run.
        side: ``teacher`` or ``student``.
        teacher: the stage of the fine-tuned one; None = it is as it was pretrained.
        start: of the student; None = its init.
        learns: the objective of the stage.
    """
    assert isinstance(config.objective, Settings)
    spec, own = _matched(config)[0], config.objective.filters
    base = config.teacher.recipe if side == "teacher" else config.recipe
    changed = own.model_dump(exclude={"dropout", "backbone"}, exclude_none=True)
    term = {
        "_target_": learns,
        "output": spec.get("output") or config.teacher.hidden_size,
        "nonlinear": spec.get("nonlinear", False),
        "dropout": own.dropout,
        "weight": 1.0,
        "pairs": [[pair[side == "teacher"]] * 2 for pair in pairs(config, spec)],
    }
    recipe = base.model_copy(update={**changed, "keep": "last", "patience": None})
    more = {"side": side, "backbone": own.backbone}
    name, terms = f"ted.{side}_filters", {"filters": term}
    if side == "student":
        first = distill.first_teacher(config, teacher) if start is None else None
        return distill.training(
            config, facts, name, "filters", terms, recipe, first, start, action="ted.filters", shared=True, more=more,
            labelled=True,
        )  # fmt: skip
    settings = {
        **distill.common(config, facts),
        "terms": terms,
        "recipe": recipe.model_dump(),
        "seed": config.teacher.seed,
        **more,
    }
    return Stage(name, "ted.filters", settings, {} if teacher is None else {"teacher": teacher}, shared=True)


def filters(phase: Phase) -> Summary:
    """Train the filters and heads on one frozen model and keep the filters; the heads are thrown away."""
    model = phase.teacher_model(phase.folder("teacher")) if phase.settings["side"] == "teacher" else phase.model()
    torch.manual_seed(phase.settings["seed"])  # whatever was drawn before: a teacher may be new or stored
    student = phase.student(model.requires_grad_(False))
    student.training = phase.settings["backbone"] == "train"
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    phase.train(student)
    assert all((p == before[n]).all() for n, p in model.named_parameters()), "the backbone of stage I has moved"
    learned: Any = student.objectives["filters"]
    sizes = {name: value.numel() for name, value in learned.filters.state_dict().items()}
    phase.keep(learned.filters, FILTERS)
    phase.summary.learned_parts, phase.summary.more = sizes, {"layers": learned.where}
    return phase.summary
