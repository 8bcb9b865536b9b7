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

from typing import Any

from kdexp.methods import distill
from kdexp.methods.base import Facts
from kdexp.store.stage import Stage

LATENT = ("general", "general_enhanced", "task_adaptive")


def problems(config: dict[str, Any]) -> list[str]:
    """Say what would stop this plan, as sentences for people."""
    found, objective = distill.problems(config), config["objective"]
    if objective["schedule"] != "joint":
        found.append(f"objective.schedule={objective['schedule']}: the last stage is one phase; use joint.")
    stages = objective.get("stages") or {}
    for name, epochs in stages.items():
        if name not in LATENT:
            found.append(f"objective.stages.{name} is unknown; known: {', '.join(LATENT)}.")
        elif epochs is not None and (not isinstance(epochs, int) or epochs < 0):
            found.append(
                f"objective.stages.{name}={epochs}: whole epochs, 0 leaves the stage out, null takes recipe.epochs."
            )
    return found


def plan(config: dict[str, Any], facts: Facts) -> Stage:
    """Return the task-specific stage; its parents are the latent ones, in order."""
    teacher = distill.teacher_stage(config, facts)
    last = distill.start_stage(config, facts, teacher)
    terms, recipe = distill.phase_terms(config, "intermediate"), distill.phase_recipe(config, "intermediate")
    for name in LATENT:
        epochs = (config["objective"].get("stages") or {}).get(name)
        if epochs == 0:
            continue
        own = recipe if epochs is None else {**recipe, "epochs": epochs}
        before = name == "general"
        taught = distill.first_teacher(config, teacher) if before and last is None else None if before else teacher
        last = distill.training(
            config, facts, f"ernie_tiny.{name}", "intermediate", terms, own, taught, last,
            teaches="pretrained" if before else None,
        )  # fmt: skip
    terms, recipe = distill.phase_terms(config, "joint"), distill.phase_recipe(config, "joint")
    return distill.training(config, facts, "ernie_tiny.task_specific", "joint", terms, recipe, teacher, last)
