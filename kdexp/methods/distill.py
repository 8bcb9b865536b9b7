"""The ordinary plan: fine-tune the teacher, then distil in one phase, in two, or in a joint one.

Two phases are the procedure of TinyBERT that How to Distill your BERT uses (Wang et al., 2023, section 3): first the
intermediate objective alone, then, from its last weights and with a fresh optimiser, the prediction layer.
"""

from __future__ import annotations

from typing import Any, ClassVar

from kdexp.common.registry import RESERVED, build, target
from kdexp.config.identity import deciding
from kdexp.config.resolve import placed
from kdexp.config.schema import Config, Recipe
from kdexp.methods.base import Facts, Method, listens, method, pairs, terms
from kdexp.store.stage import Stage
from kdexp.train.phase import Phase, Summary


class Distill(Method):
    """The ordinary plan."""

    joins: ClassVar[bool] = True
    unlabelled: ClassVar[bool] = True

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return the last phase; its parents are the teacher, the student's start and the phase before."""
        teacher = teacher_stage(config, facts) if needs_teacher(config) else None
        schedule = config.objective.schedule
        phases = {"single": ["prediction"], "two_phase": ["intermediate", "prediction"], "joint": ["joint"]}[schedule]
        last = start_stage(config, facts, teacher)
        for phase in phases:
            last = phase_stage(config, facts, phase, teacher, last)
        assert last is not None
        return last


def needs_teacher(config: Config) -> bool:
    """Tell whether a fine-tuned teacher takes part: it is copied from, or listened to."""
    if build(config.init).needs_teacher:
        return True
    return listens(config)


def common(config: Config, facts: Facts) -> dict[str, Any]:
    """Return what decides every stage: data, selection, weights' origin, arithmetic."""
    places = target(config.task).locations  # a stage's key holds the data's content instead
    sizes = ("family", "num_layers", "hidden_size", "num_heads", "intermediate_size", "vocab_size", "finetune")
    return {
        "task": deciding(config.task, places),
        "data": facts.data,
        "heldout": config.data.heldout,
        "selection": config.selection,
        "origin": facts.origin,
        "dtype": facts.dtype,
        "teacher": config.teacher.model_dump(include=set(sizes)),
    }


def student_settings(config: Config) -> dict[str, Any]:
    """Return what decides a student's shape."""
    return config.student.model_dump(exclude={"name"})


def init_settings(config: Config) -> dict[str, Any]:
    """Return what decides a student's first weights."""
    unsaid = {"name", *target(config.init).elsewhere}
    return {key: value for key, value in config.init.items() if key not in unsaid}


def teacher_stage(config: Config, facts: Facts, action: str = "distill.fine_tune", **more: Any) -> Stage:
    """Return the stage that fine-tunes the teacher on the task (or only measures a finished classifier).

    Args:
        action: what carries it out.
        more: further settings.
    """
    teacher = config.teacher
    read = {"max_length": teacher.recipe.max_length}
    own = {"recipe": teacher.recipe.model_dump(), "seed": teacher.seed} if teacher.finetune else read
    return Stage("teacher", action, {**common(config, facts), **own, **more}, shared=True, role="teacher")


def start_stage(config: Config, facts: Facts, teacher: Stage | None) -> Stage | None:
    """Return the stage that fine-tunes the student on hard labels before its method begins, or None.

    ``objective.start=fine_tuned`` asks for it, with any objective; all of them share the stage.
    """
    if config.objective.start == "raw":
        return None
    hard = {"finetune": {"_target_": "kdexp.objectives.finetune.Finetune", "weight": 1.0, "pairs": []}}
    first = first_teacher(config, teacher)
    return training(
        config, facts, "student.start", "prediction", hard, config.recipe, first, shared=True, labelled=True
    )


def first_teacher(config: Config, teacher: Stage | None) -> Stage | None:
    """Return the teacher's stage if the student's init copies from it: for stages in which it does not teach."""
    return teacher if build(config.init).needs_teacher else None


def labels_stage(config: Config, facts: Facts, teacher: Stage) -> Stage:
    """Return the stage in which the teacher labels the rows that nobody else has."""
    settings = {**common(config, facts), "unlabelled": facts.further, "max_length": config.recipe.max_length}
    return Stage("teacher.labels", "distill.label", settings, {"teacher": teacher}, shared=True)


def phase_stage(config: Config, facts: Facts, phase: str, teacher: Stage | None, start: Stage | None) -> Stage:
    """Return one phase of distillation.

    Args:
        phase: ``intermediate``, ``prediction`` or ``joint``.
        teacher: the stage whose result teaches, or None.
        start: the phase whose last weights go on; None = the student's init.
    """
    name, weighted, recipe = f"distill.{phase}", phase_terms(config, phase), phase_recipe(config, phase)
    return training(config, facts, name, phase, weighted, recipe, teacher, start)


def phase_recipe(config: Config, phase: str) -> Recipe:
    """Return the student's recipe with a phase's own number of epochs; an intermediate phase keeps its last weights."""
    asked = getattr(config.objective.epochs, "prediction" if phase == "joint" else phase)
    changes: dict[str, Any] = {} if asked is None else {"epochs": asked}
    if phase == "intermediate":
        changes["keep"] = "last"
    return config.recipe.model_copy(update=changes)


def phase_terms(config: Config, phase: str) -> dict[str, dict[str, Any]]:
    """Return a phase's terms with their weights and matched layers filled in."""
    return {
        name: {
            **{k: v for k, v in spec.items() if k not in RESERVED or k == "_target_"},
            "weight": spec.get("weight", 1.0),
            "pairs": [list(pair) for pair in pairs(config, spec)],
        }
        for name, spec in terms(config, phase).items()
    }


def training(
    config: Config, facts: Facts, name: str, phase: str, terms: dict[str, Any], recipe: Recipe,
    teacher: Stage | None = None, start: Stage | None = None, *, action: str = "distill.train_student",
    teaches: str | None = None, shared: bool = False, parents: dict[str, Stage] | None = None,
    more: dict[str, Any] | None = None, span: tuple[int, int] | None = None, labelled: bool = False,
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
        span: (i, n): it is part i (from 0) of n equal ones under one learning-rate schedule.
        labelled: it learns from labelled rows only, though the run's teacher may have labelled others.
    """
    asks = facts.further is not None and teacher is not None and not labelled and listens(config)
    settings = {
        **common(config, facts),
        "phase": phase,
        "teacher_evaluation_mode": config.teacher.evaluation_mode,
        "student": student_settings(config),
        "terms": terms,
        "recipe": recipe.model_dump(),
        "seed": config.seed,
        **({"teaches": teaches} if teaches else {}),
        **({"span": list(span)} if span else {}),
        **({"unlabelled": facts.further} if asks else {}),
        **(more or {}),
    }
    read = dict(parents or {})
    if start is not None:
        read["start"] = start
    else:
        settings["init"] = init_settings(config) | ({"origin": facts.own} if placed(config.init) else {})
        wanted = build(config.init).method
        if wanted is not None:
            read["init"] = method(wanted).init_stage(config, facts, teacher)
    if teacher is not None:
        read["teacher"] = teacher
    if asks:
        assert teacher is not None
        read["labels"] = labels_stage(config, facts, teacher)
    return Stage(name, action, settings, read, shared=shared)


# --- what its stages do ----------------------------------------------------------------------------------------------


def fine_tune(phase: Phase) -> Summary:
    """Fine-tune the teacher on the task (unless it is a classifier already), measure it, keep its answers on train."""
    phase.finetune_teacher()
    return phase.summary


def label(phase: Phase) -> Summary:
    """Let the teacher label the rows that nobody else has."""
    phase.label_further(phase.teacher_model(phase.folder("teacher")))
    return phase.summary


def train_student(phase: Phase) -> Summary:
    """Carry out one phase: initialise or continue the student, train it on the phase's objectives, measure it."""
    model = phase.model()
    student = phase.student(model, used_rows=True)
    phase.summary.mapping = {name: spec["pairs"] for name, spec in phase.settings["terms"].items() if spec["pairs"]}
    phase.train(student, phase.teacher(student))
    phase.save(model)
    if phase.settings["phase"] != "intermediate":
        phase.measure(model)
    return phase.summary
