"""LGTM: a teacher that learns beside its student, steered by its influence on held-out rows (arXiv 2305.09651).

Each update, after the released code: the student takes a trial step towards the teacher; the gradient v of the hard
loss on held-out rows at that place tells which way the student should have gone; a finite difference of the teacher's
loss along v tells the teacher how to send it there. Then the teacher moves, and the student learns from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.common.registry import build
from kdexp.methods import distill
from kdexp.methods.base import Facts
from kdexp.store.stage import Stage

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from kdexp.store.store import Finished
    from kdexp.tasks.base import Encoded
    from kdexp.train.phase import Run

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
    if config["task"].get("kind") == "regression":
        found.append(f"objective=lgtm is not defined for scores (task={config['task'].get('name')}): use kd.")
    if config["recipe"]["accumulation"] != 1:
        found.append(
            "recipe.accumulation: LGTM's teacher moves between micro-batches; use 1 and a smaller recipe.batch_size."
        )
    return found


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
        action="kdexp.methods.lgtm.learn_together", more={"co_teacher": own},
    )  # fmt: skip


def learn_together(stage: Stage, inputs: dict[str, Finished], work: Path, run: Run) -> dict[str, Any]:
    """Train student and teacher together, measure both, keep the student."""
    from functools import partial

    import torch

    from kdexp.methods.lgtm_step import Together
    from kdexp.models import build as models
    from kdexp.train import phase as train
    from kdexp.train.evaluate import majority, scores

    settings, task, own = stage.settings, run.task(), stage.settings["co_teacher"]
    recipe, everything = settings["recipe"], run.data(settings["recipe"]["max_length"])
    data, rows = _split(everything, own, settings["seed"])
    run.say(f"LGTM: {len(data['train'])} rows teach, {len(rows)} rows measure influence ({own['rows']})")
    finetuned = inputs["teacher"].folder if "teacher" in inputs else None
    student, started = train._student(stage, inputs, finetuned, task, run)
    torch.manual_seed(settings["seed"])
    teacher = models.load_pretrained(run.config["teacher"], task)
    if own["start"] == "finetuned":
        assert finetuned is not None
        teacher = models.load_teacher(run.config["teacher"], task, finetuned)
    if own["zero_head"]:
        for model in (student, teacher):
            _zero(model)
    make = partial(
        Together,
        teacher=teacher.to(run.device),
        rows=rows,
        own=own,
        seed=settings["seed"],
        total=_updates(data, recipe),
    )
    one = train._member(student.to(run.device), settings["terms"], stage, inputs, data, task, run, work, recipe, make)
    summary = train._train(stage, one, None, data, recipe, settings["seed"], run)
    student.eval()
    models.save(student, work)
    summary |= models.describe(student) | {"init": started, "mapping": {}, "majority": majority(everything, task)}
    summary["size_bytes"] = (work / "model.safetensors").stat().st_size
    summary["scores"] = scores(student, everything, task, run)
    summary["co_teacher"] = {"scores": scores(teacher, everything, task, run), "rows": len(rows)}
    return summary


def _updates(data: dict[str, Encoded], recipe: dict[str, Any]) -> int:
    from kdexp.train import loop, optim

    return optim.updates(len(loop.subset(len(data["train"]), recipe["examples"])), recipe)


def _split(data: dict[str, Encoded], own: dict[str, Any], seed: int) -> tuple[dict[str, Encoded], Encoded]:
    """Return the splits with fewer training rows, and the rows that measure influence."""
    import numpy as np

    if not own["influence"] or own["rows"] == "legacy_dev":
        return data, data["validation"]
    train = data["train"]
    order = np.random.default_rng([seed, 977]).permutation(len(train))
    aside = max(1, round(own["share"] * len(train)))
    if aside >= len(train):
        raise ValueError(
            f"objective.co_teacher.share={own['share']} of {len(train)} training rows leaves none to learn: lower it."
        )
    return {**data, "train": subset(train, np.sort(order[aside:]))}, subset(train, np.sort(order[:aside]))


def subset(split: Encoded, index: np.ndarray) -> Encoded:
    """Return the examples ``index`` of a split as a split of their own; ids count anew."""
    from dataclasses import replace

    import numpy as np

    lengths = split.lengths[index]
    places = np.concatenate([np.arange(split.offsets[i], split.offsets[i + 1]) for i in index])
    return replace(
        split, tokens=split.tokens[places], types=None if split.types is None else split.types[places],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), labels=split.labels[index], truncated=0,
    )  # fmt: skip


def _zero(model: nn.Module) -> None:
    """Set the last linear map of a classifier's head to zero."""
    from torch import nn

    prefix = f"{model.base_model_prefix}."
    heads = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and not name.startswith(prefix)]
    for tensor in heads[-1].parameters():
        nn.init.zeros_(tensor)
