"""The ordinary plan: fine-tune the teacher, then distil in one phase, in two, or in a joint one.

Two phases are the procedure of TinyBERT that How to Distill your BERT uses (Wang et al., 2023, section 3): first the
intermediate objective alone, then, from its last weights and with a fresh optimiser, the prediction layer.
"""

from __future__ import annotations

from typing import Any

from kdexp import checks
from kdexp.targets import RESERVED, build, target
from kdexp.plan import Facts
from kdexp.stage import Stage


def plan(config: dict[str, Any], facts: Facts) -> Stage:
    """Return the last stage of a run; its parents are the rest of the plan."""
    teacher = teacher_stage(config, facts) if needs_teacher(config) else None
    schedule = config["objective"]["schedule"]
    phases = {"single": ["prediction"], "two_phase": ["intermediate", "prediction"], "joint": ["joint"]}[schedule]
    last: Stage | None = None
    for phase in phases:
        last = phase_stage(config, facts, phase, teacher, last)
    assert last is not None
    return last


def needs_teacher(config: dict[str, Any]) -> bool:
    """Tell whether a fine-tuned teacher takes part: it is copied from, or listened to."""
    init = build(config["init"])
    if init.copies and init.source == "finetuned":
        return True
    specs = [*checks.terms(config, "joint").values()]
    return any(target(spec).uses_teacher for spec in specs)


def common(config: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """Return what decides every stage: data, selection, weights' origin, arithmetic."""
    sizes = ("family", "num_layers", "hidden_size", "num_heads", "intermediate_size", "vocab_size", "finetune")
    return {
        "task": config["task"],
        "data": facts.data,
        "heldout": config["data"]["heldout"],
        "selection": config["selection"],
        "origin": facts.origin,
        "dtype": facts.dtype,
        "teacher": {key: config["teacher"][key] for key in sizes},
    }


def teacher_stage(config: dict[str, Any], facts: Facts) -> Stage:
    """Return the stage that fine-tunes the teacher on the task (or only measures a finished classifier)."""
    teacher = config["teacher"]
    own = {"recipe": teacher["recipe"], "seed": teacher["seed"]} if teacher["finetune"] else {}
    return Stage("teacher", "kdexp.train.teacher", {**common(config, facts), **own}, shared=True)


def phase_stage(config: dict[str, Any], facts: Facts, phase: str, teacher: Stage | None, start: Stage | None) -> Stage:
    """Return one phase of distillation.

    Args:
        phase: ``intermediate``, ``prediction`` or ``joint``.
        teacher: the stage whose result teaches, or None.
        start: the phase whose last weights go on; None = the student's init.
    """
    recipe = dict(config["recipe"])
    epochs = (config["objective"].get("epochs") or {}).get("prediction" if phase == "joint" else phase)
    if epochs is not None:
        recipe["epochs"] = epochs
    if phase == "intermediate":
        recipe["keep"] = "last"
    terms = {}
    for name, spec in checks.terms(config, phase).items():
        layers = [list(pair) for pair in checks.pairs(config, spec, target(spec))]
        terms[name] = {**{k: v for k, v in spec.items() if k not in RESERVED or k == "_target_"}, "weight": spec.get("weight", 1.0), "pairs": layers}
    settings = {
        **common(config, facts),
        "phase": phase,
        "student": {k: v for k, v in config["student"].items() if k != "name"},
        "terms": terms,
        "recipe": recipe,
        "seed": config["seed"],
    }
    parents = {}
    if start is not None:
        parents["start"] = start
    else:
        settings["init"] = {k: v for k, v in config["init"].items() if k != "name"}
    if teacher is not None:
        parents["teacher"] = teacher
    return Stage(f"distill.{phase}", "kdexp.train.distill", settings, parents)
