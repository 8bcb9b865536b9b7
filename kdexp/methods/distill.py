"""The ordinary plan: fine-tune the teacher, then distil in one phase, in two, or in a joint one.

Two phases are the procedure of TinyBERT that How to Distill your BERT uses (Wang et al., 2023, section 3): first the
intermediate objective alone, then, from its last weights and with a fresh optimiser, the prediction layer.
"""

from __future__ import annotations

from typing import Any

from kdexp.check import combinations
from kdexp.common.registry import RESERVED, build, target
from kdexp.methods.base import Facts, method
from kdexp.store.stage import TEACHER, Stage


def plan(config: dict[str, Any], facts: Facts) -> Stage:
    """Return the last stage of a run; its parents are the rest of the plan."""
    teacher = teacher_stage(config, facts) if needs_teacher(config) else None
    schedule = config["objective"]["schedule"]
    phases = {"single": ["prediction"], "two_phase": ["intermediate", "prediction"], "joint": ["joint"]}[schedule]
    last = start_stage(config, facts, teacher)
    for phase in phases:
        last = phase_stage(config, facts, phase, teacher, last)
    assert last is not None
    return last


def problems(config: dict[str, Any]) -> list[str]:
    """Say what would stop this plan, as sentences for people."""
    start = config["objective"].get("start", "raw")
    if start not in ("raw", "fine_tuned"):
        return [f"objective.start={start} is unknown; choose raw (the init) or fine_tuned (on hard labels first)."]
    return []


def needs_teacher(config: dict[str, Any]) -> bool:
    """Tell whether a fine-tuned teacher takes part: it is copied from, or listened to."""
    if build(config["init"]).needs_teacher:
        return True
    specs = [*combinations.terms(config, "joint").values()]
    return any(target(spec).uses_teacher for spec in specs)


def common(config: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """Return what decides every stage: data, selection, weights' origin, arithmetic."""
    places = target(config["task"]).locations  # a stage's key holds the data's content instead
    sizes = ("family", "num_layers", "hidden_size", "num_heads", "intermediate_size", "vocab_size", "finetune")
    return {
        "task": {k: v for k, v in config["task"].items() if k not in places},
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
    settings = {**common(config, facts), **own}
    return Stage("teacher", "kdexp.train.phase.teacher", settings, shared=True, role=TEACHER)


def start_stage(config: dict[str, Any], facts: Facts, teacher: Stage | None) -> Stage | None:
    """Return the stage that fine-tunes the student on hard labels before its method begins, or None.

    ``objective.start=fine_tuned`` asks for it, with any objective; all of them share the stage.
    """
    if config["objective"].get("start", "raw") == "raw":
        return None
    hard = {"finetune": {"_target_": "kdexp.objectives.finetune.Finetune", "weight": 1.0, "pairs": []}}
    return training(
        config,
        facts,
        "student.start",
        "prediction",
        hard,
        config["recipe"],
        first_teacher(config, teacher),
        shared=True,
    )


def first_teacher(config: dict[str, Any], teacher: Stage | None) -> Stage | None:
    """Return the teacher's stage if the student's init copies from it: for stages in which it does not teach."""
    return teacher if build(config["init"]).needs_teacher else None


def phase_stage(config: dict[str, Any], facts: Facts, phase: str, teacher: Stage | None, start: Stage | None) -> Stage:
    """Return one phase of distillation.

    Args:
        phase: ``intermediate``, ``prediction`` or ``joint``.
        teacher: the stage whose result teaches, or None.
        start: the phase whose last weights go on; None = the student's init.
    """
    terms, recipe = phase_terms(config, phase), phase_recipe(config, phase)
    return training(config, facts, f"distill.{phase}", phase, terms, recipe, teacher, start)


def phase_recipe(config: dict[str, Any], phase: str) -> dict[str, Any]:
    """Return the student's recipe with a phase's own number of epochs; an intermediate phase keeps its last weights."""
    epochs = (config["objective"].get("epochs") or {}).get("prediction" if phase == "joint" else phase)
    recipe = config["recipe"] if epochs is None else {**config["recipe"], "epochs": epochs}
    return {**recipe, "keep": "last"} if phase == "intermediate" else recipe


def phase_terms(config: dict[str, Any], phase: str) -> dict[str, dict[str, Any]]:
    """Return a phase's terms with their weights and matched layers filled in."""
    terms = {}
    for name, spec in combinations.terms(config, phase).items():
        layers = [list(pair) for pair in combinations.pairs(config, spec, target(spec))]
        terms[name] = {
            **{k: v for k, v in spec.items() if k not in RESERVED or k == "_target_"},
            "weight": spec.get("weight", 1.0),
            "pairs": layers,
        }
    return terms


def training(
    config: dict[str, Any], facts: Facts, name: str, phase: str, terms: dict[str, Any], recipe: dict[str, Any],
    teacher: Stage | None = None, start: Stage | None = None, *, action: str = "kdexp.train.phase.distill",
    teaches: str | None = None, shared: bool = False, parents: dict[str, Stage] | None = None,
    more: dict[str, Any] | None = None,
) -> Stage:  # fmt: skip
    """Return a stage that trains the student.

    Args:
        name, phase: what people call it; ``intermediate`` = its student is not measured.
        terms, recipe: as :func:`phase_terms` and :func:`phase_recipe` give them.
        teacher: the stage whose result teaches, or is copied from.
        start: the stage whose weights go on; None = the student's init (and the stage that this one asks for).
        action: what carries it out.
        teaches: other weights that teach: ``pretrained``, or a folder inside the teacher's result; None = its own.
        shared: other runs are expected to use it too.
        parents: further stages that it reads.
        more: further settings.
    """
    settings = {
        **common(config, facts),
        "phase": phase,
        "teacher_evaluation_mode": config["teacher"]["evaluation_mode"],
        "student": {k: v for k, v in config["student"].items() if k != "name"},
        "terms": terms,
        "recipe": recipe,
        "seed": config["seed"],
        **({"teaches": teaches} if teaches else {}),
        **(more or {}),
    }
    read = dict(parents or {})
    if start is not None:
        read["start"] = start
    else:
        settings["init"] = {k: v for k, v in config["init"].items() if k != "name"}
        own = build(config["init"]).stage
        if own is not None:
            read["init"] = method(own)(config, facts, teacher)
    if teacher is not None:
        read["teacher"] = teacher
    return Stage(name, action, settings, read, shared=shared)
