"""LGTM: a teacher that learns beside its student, steered by its influence on held-out rows (arXiv 2305.09651).

Each update, after the released code: the student takes a trial step towards the teacher; the gradient v of the hard
loss on held-out rows at that place tells which way the student should have gone; a finite difference of the teacher's
loss along v tells the teacher how to send it there. Then the teacher moves, and the student learns from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from kdexp.common.registry import build
from kdexp.config import schema
from kdexp.config.schema import Config, Group
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method
from kdexp.store.stage import Stage

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from kdexp.store.store import Finished
    from kdexp.tasks.base import Encoded
    from kdexp.train.phase import Run


class CoTeacher(Group):
    """``objective.co_teacher``: how the teacher learns."""

    start: Literal["pretrained", "finetuned"]
    a_t: Annotated[float, Field(ge=0, le=1)]
    temperature: Annotated[float, Field(gt=0, lt=1000)]
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    influence: bool
    epsilon: Annotated[float, Field(gt=0, lt=1)]
    influence_rate: Literal["teacher", "student"]
    rows: Literal["train_split", "legacy_dev"]
    share: Annotated[float, Field(gt=0, lt=1)]
    zero_head: bool


class Settings(schema.Objective):
    """Group ``objective``."""

    co_teacher: CoTeacher


class LGTM(Method):
    """One stage in which teacher and student learn together."""

    Settings: ClassVar[type[schema.Objective]] = Settings

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        problems, objective, task = [], config.objective, config.task
        if objective.schedule != "single":
            problems.append(f"objective.schedule={objective.schedule}: LGTM is one phase; use single.")
        if task.get("kind") == "regression":
            problems.append(f"objective=lgtm is not defined for scores (task={task.get('name')}): use kd.")
        if config.recipe.accumulation != 1:
            problems.append(
                f"recipe.accumulation={config.recipe.accumulation}: LGTM's teacher moves between micro-batches; use 1 "
                "and a smaller recipe.batch_size."
            )
        return problems

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return that stage; a fine-tuned teacher is its parent where something starts from it."""
        assert isinstance(config.objective, Settings)
        own = config.objective.co_teacher
        fine = own.start == "finetuned"
        teacher = distill.teacher_stage(config, facts) if fine or build(config.init).needs_teacher else None
        start = distill.start_stage(config, facts, teacher)
        terms, recipe = distill.phase_terms(config, "prediction"), distill.phase_recipe(config, "prediction")
        taught = teacher if fine or start is None else None
        return distill.training(
            config, facts, "lgtm", "prediction", terms, recipe, taught, start,
            action="lgtm.learn_together", more={"co_teacher": own.model_dump()},
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
