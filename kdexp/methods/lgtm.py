"""LGTM: a teacher that learns beside its student, steered by its influence on held-out rows (arXiv 2305.09651).

Each update, after the released code: the student takes a trial step towards the teacher; the gradient v of the hard
loss on held-out rows at that place tells which way the student should have gone; a finite difference of the teacher's
loss along v tells the teacher how to send it there. Then the teacher moves, and the student learns from it. What the
stage does is in :mod:`kdexp.methods.lgtm_step`.
"""

from __future__ import annotations

from typing import Any

from kdexp.common.registry import build
from kdexp.heads.base import unanswered
from kdexp.methods import distill
from kdexp.methods.base import Facts
from kdexp.store.stage import Stage

KNOWN = {
    "start": ("pretrained", "finetuned"),
    "influence_rate": ("teacher", "student"),
    "rows": ("train_split", "legacy_dev"),
    "influence": (True, False),
    "zero_head": (True, False),
}


def problems(config: dict[str, Any]) -> list[str]:
    """Say what would stop this plan, as sentences for people."""
    found, own = distill.problems(config), config["objective"].get("co_teacher") or {}
    for key, known in KNOWN.items():
        if own.get(key) not in known:
            found.append(
                f"objective.co_teacher.{key}={own.get(key)} is unknown; choose one of: {', '.join(map(str, known))}."
            )
    for key, low, high in (
        ("share", 0, 1),
        ("a_t", -1e-9, 1 + 1e-9),
        ("epsilon", 0, 1),
        ("learning_rate", 0, 1),
        ("temperature", 0, 1e3),
    ):
        value = own.get(key)
        if not isinstance(value, int | float) or not low < value < high:
            found.append(f"objective.co_teacher.{key}={value}: a number between {low:g} and {high:g} is needed.")
    if config["objective"]["schedule"] != "single":
        found.append(f"objective.schedule={config['objective']['schedule']}: LGTM is one phase; use single.")
    if config["recipe"]["accumulation"] != 1:
        found.append(
            "recipe.accumulation: LGTM's teacher moves between micro-batches; use 1 and a smaller recipe.batch_size."
        )
    return found + _head(config)


def _head(config: dict[str, Any]) -> list[str]:
    """Refuse answers that are no distribution over classes: the teacher's loss is a divergence."""
    try:
        head = build(config["task"]).head
    except (ValueError, TypeError):  # what is wrong with the task is told where tasks are checked
        return []
    lacking = unanswered(("classes",), head)
    return [f"objective=lgtm {lacking} (task={config['task'].get('name')}): use kd."] if lacking else []


def plan(config: dict[str, Any], facts: Facts) -> Stage:
    """Return the one stage in which both learn; a fine-tuned teacher is its parent where something starts from it."""
    own = dict(config["objective"]["co_teacher"])
    fine = own["start"] == "finetuned"
    needed = fine or build(config["init"]).needs_teacher
    teacher = distill.teacher_stage(config, facts) if needed else None
    start = distill.start_stage(config, facts, teacher)
    terms, recipe = distill.phase_terms(config, "prediction"), distill.phase_recipe(config, "prediction")
    taught = teacher if fine or start is None else None
    return distill.training(
        config, facts, "lgtm", "prediction", terms, recipe, taught, start,
        action="kdexp.methods.lgtm_step.learn_together", more={"co_teacher": own},
    )  # fmt: skip
