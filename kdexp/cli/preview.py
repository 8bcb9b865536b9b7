"""What a person sees before and after a run."""

from __future__ import annotations

import sys
from statistics import median
from typing import Any

from kdexp.common import files
from kdexp.common.registry import build
from kdexp.common.status import state
from kdexp.config.schema import Config, Teacher
from kdexp.methods import base as methods
from kdexp.models import build as models
from kdexp.models import source
from kdexp.objectives import layer_maps
from kdexp.run import footprint
from kdexp.run.spec import RunSpec, cache_of, facts, unknown
from kdexp.store.replicated import open_store
from kdexp.store.stage import Stage
from kdexp.train import forecast


def before(spec: RunSpec) -> None:
    """Print who learns from whom: both models' sizes and the matched layers."""
    config, head = spec.config, build(spec.config.task).head
    for note in spec.notes:
        print(note, file=sys.stderr)
    own = source.own(config)
    small = models.count(source.of_student(config), head, config.student)
    big = models.count(config.teacher, head)
    print(f"run      {spec.run_dir}")
    teacher = config.teacher
    print(f"teacher  {teacher.name}: {teacher.num_layers} layers, {big:,} parameters{_state(teacher)}")
    print(
        f"student  {config.student.name}: {config.student.num_layers} layers, {small:,} parameters ({small / big:.0%})"
        f"{'' if own is None else _state(own)}"
    )
    for line in layer_table(config):
        print(line)


def _state(model: Teacher) -> str:
    """Return which state of the hub a model is; '' for a local one."""
    return f" ({model.source} at commit {model.commit})" if model.commit else ""


def layer_table(config: Config) -> list[str]:
    """Return the table ``student layer <- teacher layer``: where weights come from and what is matched."""
    init, own = build(config.init), source.own(config)
    layers = init.layers(config.student.num_layers, config.teacher.num_layers)
    copied = "random weights" if own is None else f"weights of its own ({own.source})"
    if layers is not None:
        copied = f"teacher layers {', '.join(map(str, layers))} ({init.source})"
    lines = [f"init     {init.name}: {copied}"]
    for phase in ("intermediate", "prediction"):
        for name, term in methods.terms(config, phase).items():
            pairs = methods.pairs(config, term)
            if pairs:
                lines.append(f"match    {phase} {name} (student layer <- teacher layer):")
                lines += ["         " + line for line in layer_maps.describe(pairs).splitlines()]
    return lines


def after(result: dict[str, Any]) -> None:
    """Print a run's scores beside the trivial answer and the teacher."""
    metric = result["task"]["metric"]
    if result["scores"]:
        mine = result["scores"]["validation"][metric]
        trivial = result["task"]["majority"]["validation"][metric]
        teacher = (result["teacher"] or {}).get("scores", {}).get("validation", {}).get(metric)
        others = "" if teacher is None else f"   teacher {100 * teacher:.1f}"
        print(f"result   {metric} {100 * mine:.1f} on validation   majority {100 * trivial:.1f}{others}")
    else:
        print("result   not scored: no term of the objective trains the student's head")
    print(f"         {result['run']['folder']}/result.json   {result['cost']['seconds']:.1f} s")
    if result["student"]["weights"]:
        print(f"         student: {result['student']['weights']}")


def stages(spec: RunSpec) -> None:
    """Print the stages of a run in order, which are in the store, and what they cost when they were built.

    The hub is not asked. What it alone could tell is named, and then nobody knows which stages are there.
    """
    for note in spec.notes:
        print(note, file=sys.stderr)
    print(f"run      {spec.run_dir}: {state(spec.run_dir)}")
    missing = unknown(spec.config)
    if missing:
        for number, stage in enumerate(spec.outline, 1):
            print(f"{number:>3}. {stage.name:<24} {_roles(stage)}".rstrip())
        print(f"     unknown until the hub is asked: {' and '.join(missing)}, so nobody knows what the store has of it")
        return
    if spec.config.teacher.commit:
        name = spec.config.teacher.name
        print(f"teacher  {name}{_state(spec.config.teacher)}, as the local cache has it; the hub was not asked")
    store = open_store(spec.config, spec.run_dir)
    with files.scratch(cache_of(spec.config)) as cache:
        planned = methods.stages(spec.config, facts(spec.config, cache))
    there = {stage.key: store.seek(stage.key) for stage in planned}
    for number, stage in enumerate(planned, 1):
        finished = there[stage.key]
        what = (
            f"in the store ({finished.meta['seconds']:.1f} s to build)"
            if finished
            else "begun, would continue"
            if (store.root / "work" / stage.key).exists()
            else "would run"
        )
        print(f"{number:>3}. {stage.name:<24} {stage.key[:12]}  {what}   {_roles(stage)}".rstrip())
    past = _seconds(store.store, {stage.name for stage in planned})
    new = [stage for stage in planned if there[stage.key] is None]
    if not new:
        guess = "nothing to do"
    elif not any(stage.name in past for stage in new):
        guess = "no finished stage of these kinds to estimate from"
    else:
        guess = f"about {sum(past.get(stage.name, 0.0) for stage in new):.0f} s"
    print(f"     {len(new)} of {len(planned)} stages would run: {guess}")
    print(f"disk     {footprint.said([spec] if new else [])}")
    for line in forecast.lines([(spec.config, planned)]):
        print(line)


def _roles(stage: Stage) -> str:
    """Return what a stage takes from which other one, in brackets; '' if it takes nothing."""
    roles = ", ".join(f"{role} from {parent.name}" for role, parent in stage.parents.items())
    return f"({roles})" if roles else ""


def _seconds(store: Any, names: set[str]) -> dict[str, float]:
    """Return the median seconds of finished stages by name."""
    took: dict[str, list[float]] = {}
    for entry in store.entries():
        if entry.meta["name"] in names:
            took.setdefault(entry.meta["name"], []).append(entry.meta["seconds"])
    return {name: median(values) for name, values in took.items()}
