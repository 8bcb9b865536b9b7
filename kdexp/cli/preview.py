"""What a person sees before and after a run."""

from __future__ import annotations

from typing import Any


def before(config: dict[str, Any]) -> None:
    """Print who learns from whom: both models' sizes and the matched layers."""
    from kdexp.common.registry import build
    from kdexp.models import build as models
    from kdexp.run import execute as runs

    head, student = build(config["task"]).head, config["student"]
    small = models.count(config["teacher"], head, student)
    big = models.count(config["teacher"], head)
    print(f"run      {runs.folder(config)}")
    print(f"teacher  {config['teacher']['name']}: {config['teacher']['num_layers']} layers, {big:,} parameters")
    print(f"student  {student['name']}: {student['num_layers']} layers, {small:,} parameters ({small / big:.0%})")
    for line in layer_table(config):
        print(line)


def layer_table(config: dict[str, Any]) -> list[str]:
    """Return the table ``student layer <- teacher layer``: where weights come from and what is matched."""
    from kdexp.check import combinations
    from kdexp.common.registry import build, target
    from kdexp.objectives import layer_maps

    init = build(config["init"])
    layers = init.layers(config["student"]["num_layers"], config["teacher"]["num_layers"])
    lines = [
        f"init     {init.name}: "
        + ("random weights" if layers is None else f"teacher layers {', '.join(map(str, layers))} ({init.source})")
    ]
    for phase in ("intermediate", "prediction"):
        for name, spec in (config["objective"].get(phase) or {}).items():
            found = combinations.pairs(config, spec, target(spec))
            if found:
                lines.append(f"match    {phase} {name} (student layer <- teacher layer):")
                lines += ["         " + line for line in layer_maps.describe(found).splitlines()]
    return lines


def after(result: dict[str, Any]) -> None:
    """Print a run's scores beside the trivial answer and the teacher."""
    metric = result["task"]["metric"]
    mine = result["scores"]["validation"][metric]
    trivial = result["task"]["majority"]["validation"][metric]
    teacher = (result["teacher"] or {}).get("scores", {}).get("validation", {}).get(metric)
    others = "" if teacher is None else f"   teacher {100 * teacher:.1f}"
    print(f"result   {metric} {100 * mine:.1f} on validation   majority {100 * trivial:.1f}{others}")
    print(f"         {result['run']['folder']}/result.json   {result['cost']['seconds']:.1f} s")
    if result["student"]["weights"]:
        print(f"         student: {result['student']['weights']}")


def plan(config: dict[str, Any]) -> None:
    """Print the stages of a run in order, which are in the store, and what they cost when they were built."""
    from pathlib import Path

    from kdexp.methods import base as plan
    from kdexp.run import execute as runs
    from kdexp.store.store import Store

    store = Store(Path(config["runtime"]["store"]))
    stages = plan.stages(config)
    print(f"run      {runs.folder(config)}: {runs.state(runs.folder(config))}")
    for number, stage in enumerate(stages, 1):
        have = store.get(stage.key, verify=False)
        left = store.root / "work" / stage.key
        what = (
            f"in the store ({have.meta['seconds']:.1f} s to build)"
            if have
            else "begun, would continue"
            if left.exists()
            else "would run"
        )
        roles = ", ".join(f"{role} from {parent.name}" for role, parent in stage.parents.items())
        print(f"{number:>3}. {stage.name:<24} {stage.key[:12]}  {what}" + (f"   ({roles})" if roles else ""))
    past = similar(store, {s.name for s in stages})
    new = [s for s in stages if store.get(s.key, verify=False) is None]
    guess = sum(past.get(s.name, 0.0) for s in new)
    known = (
        "no finished stage of these kinds to estimate from"
        if new and not any(s.name in past for s in new)
        else f"about {guess:.0f} s"
    )
    print(f"     {len(new)} of {len(stages)} stages would run: {known if new else 'nothing to do'}")


def similar(store: Any, names: set[str]) -> dict[str, float]:
    """Return the median seconds of finished stages by name."""
    from statistics import median

    found: dict[str, list[float]] = {}
    for entry in store.entries():
        if entry.meta["name"] in names:
            found.setdefault(entry.meta["name"], []).append(entry.meta["seconds"])
    return {name: median(values) for name, values in found.items()}
