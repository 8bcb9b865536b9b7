"""Distillation without a task: one phase on raw text, taught by the teacher as it was pretrained.

A run of its own (``task=mlm objective=agnostic_att_mse``), or, with ``init=agnostic``, the stage that a student of any
task starts from: :class:`kdexp.inits.agnostic.Agnostic` has the groups of such a run, and the stage is the very same.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import ValidationError

from kdexp.common import files
from kdexp.common.registry import build, target
from kdexp.config import schema
from kdexp.config.resolve import placed, source_folder
from kdexp.config.schema import Amount, Config, Count, Data, Group, Recipe
from kdexp.heads.base import LANGUAGE
from kdexp.heads.hidden_tokens import TOKENS, hidden_only
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method, method, terms
from kdexp.models import weights
from kdexp.models.families.base import family, of
from kdexp.store.stage import Stage
from kdexp.tasks.base import Dataset
from kdexp.train import evaluate
from kdexp.train.batching import evaluation_batches
from kdexp.train.phase import Phase, Summary
from kdexp.train.question import PRETRAINED
from kdexp.train.step import run_step
from kdexp.train.student import Student
from kdexp.train.teachers import CachedTeacher, Teacher

GROUPS = ("objective", "recipe")
"""Groups of the init that have a type of their own."""
TIMED = 6
"""Updates by which the speed of a machine is measured; as many before them do not count."""
SPECIMENS = 512
"""Sequences of a split on which student and teacher are compared."""


class Budget(Group):
    """``objective.budget``: what ends the phase instead of ``recipe.steps``; null = nothing."""

    tokens: Count | None = None
    hours: Amount | None = None


class Settings(schema.Objective):
    """Group ``objective``."""

    teacher: Literal["pretrained", "adapted"] = "pretrained"
    budget: Budget = Budget()


class Agnostic(Method):
    """One phase on the task's inputs; its terms stand under ``objective.prediction``, latent ones too."""

    Settings: ClassVar[type[schema.Objective]] = Settings
    auto: ClassVar[str | None] = "last_only"

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`: of a run on raw text, or of an init's groups."""
        if config.objective.method == "agnostic":
            return _unfit(config)
        return _untyped(config.init)

    def inside(self, config: Config) -> Config | None:
        """Return the configuration of the stage on raw text: the init's groups in place of the run's."""
        return None if _untyped(config.init) else _inner(config)

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return the one phase; its parents are the init's, and a teacher that was trained on the text before."""
        config, objective = plain(config), config.objective
        assert isinstance(objective, Settings)
        adapted = objective.teacher == "adapted"
        teacher = distill.teacher_stage(adapting(config), facts) if adapted else None
        weighted = distill.phase_terms(config, "prediction")
        heard = any(target(spec).uses_teacher for spec in weighted.values())
        return distill.training(
            config, facts, "agnostic", "prediction", weighted, config.recipe, teacher,
            action="agnostic.pretrain", teaches=PRETRAINED if heard and not adapted else None,
            more=budget(config),
        )  # fmt: skip

    def init_stage(self, config: Config, facts: Facts, teacher: Stage | None) -> Stage:
        """Return the last stage of the run on raw text, which knows nothing of the task."""
        inner = _inner(config)
        known = replace(facts, data=facts.of(inner))
        return _carried(method(inner.objective.method).plan(inner, known), inner)


def plain(config: Config) -> Config:
    """Return a configuration without what has no effect here, so that equal stages have equal keys."""
    teacher = config.teacher.model_copy(update={"finetune": True})
    unselected = {"selection": "last"} if config.recipe.keep == "last" else {}
    return config.model_copy(update={"teacher": teacher, **unselected})


def adapting(config: Config) -> Config:
    """Return a configuration whose teacher is trained on the text as its student is."""
    return config.model_copy(update={"teacher": config.teacher.model_copy(update={"recipe": config.recipe})})


def _carried(stage: Stage, config: Config) -> Stage:
    """Return a stage and all before it as stages of another configuration, which other runs are expected to use too."""
    parents = {role: _carried(parent, config) for role, parent in stage.parents.items()}
    name = stage.name if stage.name.startswith("agnostic") else f"agnostic.{stage.name}"
    return replace(stage, name=name, parents=parents, shared=True, role="", config=stage.config or config)


# --- the configuration of the stage on raw text ----------------------------------------------------------------------


def _untyped(init: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the types of an init's groups."""
    wrong = []
    for key in ("task", "mapping", "start", *GROUPS):
        if not isinstance(init.get(key), dict) or not init[key]:
            wrong.append(f"init.{key} is no group of settings: choose one ({key}@init.{key}=...).")
        elif key in GROUPS:
            try:
                _group(key, init[key])
            except ValidationError as error:
                wrong += schema.sentences(error, _kind(key, init[key]), f"init.{key}")
            except ValueError as error:
                wrong.append(f"init.{key}: {error}")
    if placed(init.get("start")):
        wrong.append(
            f"init.start.source={init['start']['source']}: a student with weights of its own is distilled on raw text "
            "by a run of its own (task=mlm init=own), from whose result others start (init=own init.source=path:...)."
        )
    if init.get("selection", "last") not in ("heldout", "validation", "last"):
        wrong.append(f"init.selection={init['selection']} is unknown; choose one of: heldout, validation, last.")
    return wrong


def _kind(key: str, given: dict[str, Any]) -> type[Group]:
    return Recipe if key == "recipe" else method(str(given.get("method", "distill"))).Settings


def _group(key: str, given: dict[str, Any]) -> Group:
    return _kind(key, given).model_validate(given)


def _inner(config: Config) -> Config:
    init = config.init
    return config.model_copy(
        update={
            **{key: _group(key, init[key]) for key in GROUPS},
            "teacher": config.teacher.model_copy(update={"finetune": True}),
            "task": dict(init["task"]),
            "mapping": dict(init["mapping"]),
            "init": dict(init["start"]),
            "data": Data(root=config.data.root, heldout=init.get("heldout", 0.01)),
            "selection": init.get("selection", "last"),
            "seed": init.get("seed", 1),
        }
    )


# --- what cannot work ----------------------------------------------------------------------------------------------


def _unfit(config: Config) -> list[str]:
    """Say what cannot work in a phase on raw text."""
    objective = config.objective
    assert isinstance(objective, Settings)
    wrong = []
    if objective.schedule != "single":
        wrong.append(f"objective.schedule={objective.schedule}: a run on raw text has one phase; use single.")
    if objective.start != "raw":
        wrong.append(f"objective.start={objective.start}: raw text has no labels to fine-tune on; use raw.")
    wrong += doubly_ended(config)
    if config.recipe.keep == "best" and config.selection != "last" and _untrained(config):
        wrong.append(
            f"recipe.keep=best with selection={config.selection} keeps the weights that answer best, but no term of "
            f"objective={objective.name} trains the student's head, so its answers are a random head's: use "
            "recipe.keep=last."
        )
    return wrong + unheard(config, objective.teacher)


def doubly_ended(config: Config) -> list[str]:
    """Say which settings end the phase, where several do."""
    given = [f"objective.budget.{name}={value}" for name, value in budget(config).get("budget", {}).items()]
    asked = len(given)
    given += [f"recipe.steps={config.recipe.steps}"] if config.recipe.steps is not None else []
    if asked and len(given) > 1:
        return [f"{' and '.join(given)}: one of them ends the phase; set the others to null."]
    return []


def budget(config: Config) -> dict[str, Any]:
    """Return what a stage's settings say of its budget; {} = it has none."""
    objective = config.objective
    assert isinstance(objective, Settings)
    given = {key: value for key, value in objective.budget.model_dump().items() if value is not None}
    return {"budget": given} if given else {}


def _untrained(config: Config) -> bool:
    """Tell whether no term trains the student's language head, which starts at random and has weights of its own."""
    if build(config.init).head or not family(str(config.teacher.family)).language_head:
        return False
    return not any(target(spec).answers for spec in terms(config, "prediction").values())


def unheard(config: Config, taught: str) -> list[str]:
    """Say what a run on raw text wants of a teacher that nobody trains there.

    Args:
        config: of the run.
        taught: ``pretrained`` or ``adapted``.
    """
    wrong, init = [], build(config.init)
    if taught == "pretrained" and init.needs_teacher and init.method is None:
        wrong.append(
            f"init={init.name} with init.source={init.source}: nobody fine-tunes a teacher on raw text; use "
            "init.source=pretrained and init.pooler=false (or objective.teacher=adapted)."
        )
    answering = [
        name for name, spec in terms(config, "prediction").items() if target(spec).uses_teacher and target(spec).answers
    ]
    return wrong + (_speechless(config, answering) if answering and taught == "pretrained" else [])


def _speechless(config: Config, answering: list[str]) -> list[str]:
    """Refuse terms that read a pretrained teacher's answers where its files have no head that answers."""
    if config.teacher.pretrain is not None:  # a stage makes its weights, with a head
        return []
    folder = source_folder(config.teacher.source, config.teacher.commit)
    head = family(str(config.teacher.family)).language_head
    shapes = weights.shapes(folder) if folder is not None and (folder / "config.json").is_file() else None
    if build(config.task).head.auto_class in LANGUAGE and (
        shapes is None or any(name.startswith(head) for name in shapes)
    ):
        return []  # of the hub, and not here yet: it is looked at when it is loaded
    return [
        f"objective.prediction.{name} reads the teacher's answers on task={config.task['name']}, but "
        f"teacher={config.teacher.name} was pretrained without a head for it (its files have no {head}*): choose an "
        "objective on hidden states or attention, another teacher, or objective.teacher=adapted, which trains the "
        "teacher and a head on the text first."
        for name in answering
    ]


# --- what its stage does -------------------------------------------------------------------------------------------


def pretrain(phase: Phase) -> Summary:
    """Train the student on raw text, measure it there, and say how far it agrees with its teacher."""
    phase.recipe = _budgeted(phase)
    model = phase.model()
    student = phase.student(model, used_rows=True)
    phase.summary.mapping = {name: spec["pairs"] for name, spec in phase.settings["terms"].items() if spec["pairs"]}
    teacher = phase.teacher(student)
    phase.train(student, teacher)
    phase.save(model)
    head = _head(phase, student)
    if head != "random":
        phase.measure(model)
    else:
        phase.summary.scores, phase.summary.majority = {}, {}
        phase.context.say(
            f"stage {phase.stage.name}: no term trains the student's head, so its answers are a random head's and are "
            "not scored; heldout_terms in the stage's record say what was learned"
        )
    tokens = phase.recipe.batch_size * (phase.summary.steps or 0) * phase.recipe.max_length
    phase.summary.more = {
        "tokens": tokens,
        "tokens_per_s": round(tokens / max(phase.summary.seconds or 0, 1e-9), 1),
        "head": head,
        "heldout_terms": {
            name: _terms(phase, student, teacher, split) for name, split in evaluate.measured(phase.data()).items()
        },
        "agreement": None if head == "random" else _agreement(phase, student),
    }
    return phase.summary


def _head(phase: Phase, student: Student) -> str:
    """Say what a student's head is: ``trained``, ``embedding`` (it has no other weights), ``copied`` or ``random``."""
    model, first = student.model, phase.summary.init or {}
    below = {id(weight) for weight in of(model).base(model).parameters()}
    if student.step.answers:
        return "trained"
    if all(id(weight) in below for weight in model.parameters()):
        return "embedding"
    return "copied" if first.get("copied") and not first.get("random_names") else "random"


def _budgeted(phase: Phase) -> Recipe:
    """Return the recipe with the number of updates that the budget is worth; fixed once for all attempts."""
    budget, recipe = phase.settings.get("budget", {}), phase.recipe
    if "tokens" in budget:
        return recipe.model_copy(update={"steps": max(1, budget["tokens"] // (recipe.batch_size * recipe.max_length))})
    if "hours" not in budget:
        return recipe
    note, ranks = phase.work / "budget.json", phase.context.ranks
    known = ranks.told(files.read_record(note, {"steps": int}))
    if known is None:
        seconds = ranks.told(_seconds(phase))  # all time their updates together, and go by the clock of the first
        known = {"steps": max(1, int(budget["hours"] * 3600 / seconds))}
        if ranks.first:
            files.write_record(note, known)
        phase.context.say(
            f"stage {phase.stage.name}: an update takes {seconds:.3f} s here, so {budget['hours']:g} h are "
            f"{known['steps']} updates"
        )
    return recipe.model_copy(update={"steps": known["steps"]})


def _seconds(phase: Phase) -> float:
    """Return how long an update of this stage takes on this machine: a few are made and thrown away."""
    context, times = phase.context, list[float]()
    quiet = replace(
        context, show=lambda *ignored: None, write=lambda *ignored: None, saved=lambda key: None, turns=None
    )  # alone: its teacher is nobody else's

    def note(student: Student, step: int) -> None:
        if context.device.type == "cuda":
            torch.cuda.synchronize(context.device)
        times.append(time.monotonic())

    with tempfile.TemporaryDirectory(dir=phase.work, prefix=".timing-") as aside:
        trial = Phase(phase.stage, phase.inputs, Path(aside), quiet)
        trial.recipe = phase.recipe.model_copy(update={"steps": 2 * TIMED})
        student = trial.student(trial.model(), used_rows=True)
        trial.train(student, trial.teacher(student), after_update=note)
    return (times[-1] - times[TIMED - 1]) / TIMED


@torch.no_grad()
def _terms(phase: Phase, student: Student, teacher: Teacher | None, split: Dataset) -> dict[str, float]:
    """Return what each term is on a split that was not trained on: is the loss curve right?"""
    if isinstance(teacher, CachedTeacher):
        return {}  # it knows the training examples only
    step, device = student.step, phase.context.device
    step.eval()
    ones = {name: torch.ones((), device=device) for name in step.objectives}
    sums, units = np.zeros(len(ones)), np.zeros(len(ones))
    for index in evaluation_batches(split.costs, min(evaluate.EVALUATION_BATCH, step.head.together)):
        batch = split.collate(index).to(device)
        values = run_step(step, batch, teacher(batch) if teacher else None, ones)[1].tolist()
        counts = [objective.units(batch) for objective in step.listeners()]
        weighs = np.array([1.0 if count is None else float(count) for count in counts])
        sums += np.array(values) * weighs
        units += weighs
    return dict(zip(ones, (sums / np.maximum(units, 1)).round(6).tolist(), strict=True))


def _agreement(phase: Phase, student: Student) -> dict[str, float] | None:
    """Return by split how often both give the same most probable token where one is asked for; None = no head."""
    splits = {name: split for name, split in evaluate.measured(phase.data()).items() if TOKENS in split.targets}
    if not splits:
        return None
    teacher = phase.teacher_model(phase.folder("teacher"))
    if getattr(teacher, "made_up", None):
        return None
    found, head = {}, phase.task.head
    for name, split in splits.items():
        rows = np.unique(np.linspace(0, len(split) - 1, min(SPECIMENS, len(split))).astype(np.int64))
        both = [
            evaluate.predict(model, split, head, phase.context, rows)["token"] for model in (student.model, teacher)
        ]
        hidden = np.asarray(split.targets[TOKENS])[rows]
        one, other = (hidden_only(tokens, hidden) for tokens in both)
        found[name] = round(float(np.mean(one == other)), 6)
    return found
