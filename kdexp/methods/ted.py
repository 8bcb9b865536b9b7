"""TED: filters on teacher and student first, then distillation through them (Liang et al. 2023, arXiv 2210.01351).

Stage I trains a filter and a small head on each matched layer of a frozen model: once for the teacher, once for the
student (fine-tuned before if ``objective.start=fine_tuned``). Stage II trains the student with both sides' filters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdexp.check import combinations
from kdexp.common.registry import target
from kdexp.methods import distill
from kdexp.methods.base import Facts
from kdexp.store.stage import Stage

if TYPE_CHECKING:
    from kdexp.train.phase import Phase, Summary

FILTERS = "filters.safetensors"
OWN = ("epochs", "steps", "examples", "batch_size", "learning_rate", "warmup")


def problems(config: dict[str, Any]) -> list[str]:
    """Say what would stop this plan, as sentences for people."""
    found, objective = distill.problems(config), config["objective"]
    filters = objective.get("filters") or {}
    if objective["schedule"] != "joint":
        found.append(f"objective.schedule={objective['schedule']}: TED's stage II is one phase; use joint.")
    unknown = set(filters) - {"dropout", "backbone", *OWN}
    if unknown:
        found.append(f"objective.filters.{sorted(unknown)[0]} is unknown; known: dropout, backbone, {', '.join(OWN)}.")
    if filters.get("backbone", "eval") not in ("eval", "train"):
        found.append(
            f"objective.filters.backbone={filters['backbone']} is unknown; choose eval or train (its dropout on)."
        )
    if len(_matched(config)) != 1:
        found.append(
            "objective.plan=kdexp.methods.ted.plan needs one term under objective.intermediate with "
            "teacher_filter=trained."
        )
    return found


def _matched(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the terms that match filters of stage I."""
    terms = (config["objective"].get("intermediate") or {}).values()
    return [spec for spec in terms if spec.get("teacher_filter") == "trained"]


def plan(config: dict[str, Any], facts: Facts) -> Stage:
    """Return stage II; its parents are the teacher, the student's start and the filters of both."""
    teacher = distill.teacher_stage(config, facts)
    start = distill.start_stage(config, facts, teacher)
    filters = {side: filter_stage(config, facts, side, teacher, start) for side in ("teacher", "student")}
    terms, recipe = distill.phase_terms(config, "joint"), distill.phase_recipe(config, "joint")
    parents = {f"{side}_filters": made for side, made in filters.items()}
    return distill.training(config, facts, "ted.match", "joint", terms, recipe, teacher, start, parents=parents)


def filter_stage(config: dict[str, Any], facts: Facts, side: str, teacher: Stage, start: Stage | None) -> Stage:
    """Return stage I of one side: same recipe as that model's fine-tuning, but for what ``objective.filters`` says.

    The filters' width is that of stage II: the term's ``output``, or the teacher's width.
    """
    spec, own = _matched(config)[0], config["objective"].get("filters") or {}
    pairs = combinations.pairs(config, spec, target(spec))
    layers = [[pair[side == "teacher"]] * 2 for pair in pairs]
    base = config["teacher"]["recipe"] if side == "teacher" else config["recipe"]
    changed = {key: own[key] for key in OWN if own.get(key) is not None}
    term = {
        "_target_": "kdexp.objectives.ted.TedFilters",
        "output": spec.get("output") or config["teacher"]["hidden_size"],
        "nonlinear": spec.get("nonlinear", False),
        "dropout": own.get("dropout", 0.1),
        "weight": 1.0,
        "pairs": layers,
    }
    recipe = {**base, **changed, "keep": "last", "patience": None}
    more = {"side": side, "backbone": own.get("backbone", "eval")}
    name, action, terms = f"ted.{side}_filters", "kdexp.methods.ted.filters", {"filters": term}
    if side == "student":
        first = distill.first_teacher(config, teacher) if start is None else None
        return distill.training(
            config, facts, name, "filters", terms, recipe, first, start, action=action, shared=True, more=more
        )
    settings = {
        **distill.common(config, facts),
        "terms": terms,
        "recipe": recipe,
        "seed": config["teacher"]["seed"],
        **more,
    }
    return Stage(name, action, settings, {"teacher": teacher}, shared=True)


def filters(phase: Phase) -> Summary:
    """Train the filters and heads on one frozen model and keep the filters; the heads are thrown away."""
    model = phase.teacher_model(phase.folder("teacher")) if phase.settings["side"] == "teacher" else phase.model()
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
