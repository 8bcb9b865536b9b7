"""Classes that arrive in steps: a counterpart of response distillation for incremental detection (arXiv 2110.13471).

Stage one: the student learns the first classes. Stage two: it goes on with the examples of the new classes alone, while
its former self answers for the old ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from kdexp.common.registry import build
from kdexp.config import schema
from kdexp.config.schema import Config, Count
from kdexp.heads.base import unanswered
from kdexp.heads.classification import LABEL
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method
from kdexp.models import build as models
from kdexp.store.stage import Stage
from kdexp.tasks.base import Dataset, Subset
from kdexp.train.phase import Phase, Summary
from kdexp.train.teachers import LiveTeacher


class Settings(schema.Objective):
    """Group ``objective``."""

    old_classes: Count | None = None


class Arriving(Method):
    """Old classes first, then new ones beside what the student used to say."""

    Settings: ClassVar[type[schema.Objective]] = Settings

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        objective, found = config.objective, []
        lacking = unanswered(("classes", "examples"), build(config.task).head)
        if lacking:
            return [f"objective.method=arriving {lacking} (task={config.task.get('name')}): use objective=kd."]
        classes = len(config.task.get("label_names") or [])
        if objective.schedule != "single" or objective.intermediate:
            found.append("objective.method=arriving has one phase for each part of the classes: use schedule=single.")
        if classes < 3:
            found.append(
                f"objective.method=arriving needs three classes or more, and task={config.task.get('name')} has "
                f"{classes}: some must be old and some new."
            )
        elif isinstance(objective, Settings) and objective.old_classes is not None and objective.old_classes >= classes:
            found.append(f"objective.old_classes={objective.old_classes} of {classes} classes: none would be new.")
        return found

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return the stage of the new classes; its parent is that of the old ones."""
        assert isinstance(config.objective, Settings)
        old = config.objective.old_classes or len(config.task["label_names"]) // 2
        recipe = distill.phase_recipe(config, "prediction").model_copy(update={"keep": "last"})
        copied = distill.teacher_stage(config, facts) if build(config.init).needs_teacher else None
        hard = {"finetune": {"_target_": "kdexp.objectives.finetune.Finetune", "weight": 1.0, "pairs": []}}
        first = distill.training(
            config, facts, "arriving.old", "prediction", hard, recipe, copied, action="arriving.learn_old",
            shared=True, more={"old_classes": old},
        )  # fmt: skip
        terms = {
            name: {**spec, "old_classes": old} if spec.get("old_classes", old) is None else spec
            for name, spec in distill.phase_terms(config, "prediction").items()
        }
        return distill.training(
            config, facts, "arriving.new", "prediction", terms, recipe, start=first, action="arriving.learn_new",
            more={"old_classes": old},
        )  # fmt: skip


def learn_old(phase: Phase) -> Summary:
    """Train the student on the examples of the old classes."""
    return _learn(phase, lambda label: label < phase.settings["old_classes"])


def learn_new(phase: Phase) -> Summary:
    """Train it further on the examples of the new classes; its former self teaches."""
    return _learn(phase, lambda label: label >= phase.settings["old_classes"])


def _learn(phase: Phase, wanted: Callable[[np.ndarray], np.ndarray]) -> Summary:
    splits, old = phase.data(), phase.settings["old_classes"]
    data = {**splits, "train": _part(splits["train"], wanted)}
    model = phase.model()
    student = phase.student(model, data=data)
    teacher, folder = None, phase.folder("start")
    if folder is not None:
        head = phase.goal.head
        former = models.restore(folder, head).to(phase.context.device)
        teacher = LiveTeacher(former, head, frozenset(), phase.context.cast)
    phase.train(student, teacher, data)
    phase.save(model)
    judged = {name: split for name, split in splits.items() if name != "train"}
    parts = {"old": lambda label: label < old, "new": lambda label: label >= old}
    for name, split in list(judged.items()):
        judged |= {f"{name}_{part}": _part(split, rule) for part, rule in parts.items()}
    scores = phase.measure(model, {**data, **judged})
    if folder is not None:
        before = phase.inputs["start"].summary["scores"]
        metric = phase.goal.metric
        forgotten = {name: before[name][metric] - now[metric] for name, now in scores.items() if name.endswith("_old")}
        phase.summary.more = {"forgotten": forgotten}
    return phase.summary


def _part(split: Dataset, wanted: Callable[[np.ndarray], np.ndarray]) -> Subset:
    """Return the examples whose class is wanted."""
    rows = np.flatnonzero(wanted(np.asarray(split.targets[LABEL])))
    if not len(rows):
        raise ValueError("a part of the classes has no examples in one of the splits: choose another old_classes.")
    return Subset(split, rows)
