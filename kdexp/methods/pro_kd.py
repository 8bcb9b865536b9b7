"""Checkpoint-following KD, our reading of Pro-KD (Rezagholizadeh et al. 2022, arXiv 2110.08532).

The teacher's fine-tuning keeps its trajectory. Stage 1: the student follows the teacher's checkpoints in order, a stage
each. Stage 2: hard labels. The paper beyond its first page is not verified, so this is a reading and not the method.

Softening goes with time, not with the checkpoint: the i-th of n parts of stage 1 is softened alike whichever
checkpoint teaches in it, so that the orders differ in nothing else.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from kdexp.common.registry import target
from kdexp.config import schema
from kdexp.config.schema import Config, Count, Group, Recipe
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method
from kdexp.store.stage import Stage
from kdexp.train.phase import Phase, Summary
from kdexp.train.student import Student

FOLDER = "trajectory/{number:02d}"


class Trajectory(Group):
    """``objective.trajectory``: what the teacher's fine-tuning keeps."""

    every: Count = 1
    unit: Literal["epoch", "step"] = "epoch"
    dtype: Literal["fp32", "bf16"] = "fp32"


class Settings(schema.Objective):
    """Group ``objective``."""

    order: Literal["forward", "final", "best", "reversed", "shuffled"] = "forward"
    optimiser: Literal["fresh", "one_schedule"] = "one_schedule"
    stage2_start: Literal["last", "best"] = "last"
    trajectory: Trajectory = Trajectory()


class ProKD(Method):
    """Follow the teacher's checkpoints, then hard labels."""

    Settings: ClassVar[type[schema.Objective]] = Settings
    unlabelled: ClassVar[bool] = True

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        problems, objective, teacher = [], config.objective, config.teacher
        assert isinstance(objective, Settings)
        if objective.schedule != "two_phase":
            problems.append(
                f"objective.schedule={objective.schedule}: checkpoints first, then hard labels; use two_phase."
            )
        if not teacher.finetune:
            problems.append(
                "teacher.finetune=false: a teacher that is not fine-tuned here has no trajectory to follow."
            )
        if teacher.recipe.patience is not None:
            problems.append(
                "teacher.recipe.patience: a teacher that may stop early has no fixed number of checkpoints; use null."
            )
        if "best" in (objective.order, objective.stage2_start) and config.selection == "last":
            problems.append(
                "selection=last: a best checkpoint is searched by score; use selection=heldout, or stage2_start=last."
            )
        if objective.trajectory.unit == "step" and teacher.recipe.steps is None:
            problems.append(
                "objective.trajectory.unit=step with teacher.recipe.steps=null: the plan must know how many "
                "checkpoints there will be; give teacher.recipe.steps=..., or use unit=epoch."
            )
        return problems

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return stage 2; its parents are the students that followed the checkpoints and the teacher's trajectory."""
        objective, count = config.objective, checkpoints(config)
        assert isinstance(objective, Settings)
        kept = objective.trajectory.model_dump()
        teacher = distill.teacher_stage(config, facts, action="pro_kd.trajectory", trajectory=kept)
        start = distill.start_stage(config, facts, teacher)
        if objective.order == "best":
            paths = [follow(config, facts, teacher, start, [number] * count) for number in range(1, count + 1)]
            last = choose(config, facts, [path[-1] for path in paths])
        else:
            path = follow(config, facts, teacher, start, sequence(objective.order, count, config.seed))
            last = path[-1] if objective.stage2_start == "last" else choose(config, facts, path)
        return distill.phase_stage(config, facts, "prediction", teacher, last)


def checkpoints(config: Config) -> int:
    """Return how many checkpoints the teacher leaves behind; the last one is the end of its fine-tuning."""
    assert isinstance(config.objective, Settings)
    kept, recipe = config.objective.trajectory, config.teacher.recipe
    if kept.unit == "epoch" and recipe.steps is not None:
        return 1  # only the end is sure
    whole = recipe.epochs if kept.unit == "epoch" else recipe.steps
    assert whole is not None  # checked
    return -(-whole // kept.every)


def sequence(order: str, count: int, seed: int) -> list[int]:
    """Return which checkpoint (from 1) teaches in each of the ``count`` parts of stage 1."""
    forward = list(range(1, count + 1))
    if order == "shuffled":
        return random.Random(f"checkpoints {seed}").sample(forward, count)
    return {"forward": forward, "reversed": forward[::-1], "final": [count] * count}[order]


def follow(config: Config, facts: Facts, teacher: Stage, start: Stage | None, order: list[int]) -> list[Stage]:
    """Return the parts of stage 1: part i follows checkpoint ``order[i]`` for ``objective.epochs.intermediate`` epochs.

    The whole path is in each part's key: parts are not shared between orders, since only a finished run's last weights
    are kept and two runs must not tidy up each other's.
    """
    objective, count, stages = config.objective, len(order), []
    assert isinstance(objective, Settings)
    recipe = distill.phase_recipe(config, "intermediate")
    for part, number in enumerate(order, 1):
        terms = distill.phase_terms(config, "intermediate")
        for spec in terms.values():
            if target(spec).follows_checkpoints:
                spec |= {"checkpoint": part, "checkpoints": count}
        stage = distill.training(
            config, facts, f"pro_kd.part{part}.checkpoint{number}", "follow", terms, recipe, teacher, start,
            teaches=FOLDER.format(number=number), more={"path": [objective.order, *order]},
            span=(part - 1, count) if objective.optimiser == "one_schedule" else None,
        )  # fmt: skip
        stages.append(stage)
        start = stage
    return stages


def choose(config: Config, facts: Facts, candidates: list[Stage]) -> Stage:
    """Return the stage that passes the best of several students on, by score on the selecting split."""
    parents = {f"candidate_{number:02d}": stage for number, stage in enumerate(candidates, 1)}
    return Stage("pro_kd.choose", "pro_kd.pick", distill.common(config, facts), parents)


def pick(phase: Phase) -> Summary:
    """Copy the weights of the best candidate; of equals, the first."""
    split, metric = phase.settings["selection"], phase.task.metric
    found = {role: parent.summary["scores"][split][metric] for role, parent in phase.inputs.items()}
    best = max(found, key=lambda role: found[role])
    phase.context.say(f"best of {len(found)}: {best} with {metric} {found[best]:.4f} on {split} ({found})")
    chosen = phase.inputs[best]
    shutil.copyfile(chosen.folder / "model.safetensors", phase.work / "model.safetensors")
    phase.summary.init, phase.summary.scores = chosen.summary["init"], chosen.summary["scores"]
    phase.summary.more = {"chosen": best, "candidates": found}
    return phase.summary


def trajectory(phase: Phase) -> Summary:
    """Fine-tune the teacher as ever and keep its weights on the way, a folder a checkpoint, with its answers.

    The answers are those of the rows that it was trained on; students that see others run the checkpoint itself.
    """
    kept, rows = phase.settings["trajectory"], phase.rows()
    steps = marks(phase.updates(), -(-len(rows) // phase.recipe.batch_size), kept, phase.recipe)
    _estimate(phase.teacher_parameters(), len(steps), kept["dtype"], phase.work, phase.context.say)

    def keep(student: Student, step: int) -> None:
        if step in steps:
            folder = FOLDER.format(number=steps.index(step) + 1)
            phase.keep(student.model, f"{folder}/model.safetensors", kept["dtype"])

    phase.finetune_teacher(after_update=keep)
    checkpoints = []
    for number, step in enumerate(steps, 1):
        folder = phase.work / FOLDER.format(number=number)
        model = phase.teacher_model(folder)
        phase.keep_answers(model, folder, rows)
        checkpoints.append({"step": step, "scores": phase.scores(model)})
    phase.summary.more = {"checkpoints": checkpoints}
    return phase.summary


def marks(total: int, per_epoch: int, kept: dict[str, Any], recipe: Recipe) -> list[int]:
    """Return after which updates a checkpoint is kept, as many as :func:`checkpoints` says; the last one always is."""
    if kept["unit"] == "epoch" and recipe.steps is not None:
        return [total]
    every = kept["every"] * (per_epoch if kept["unit"] == "epoch" else 1)
    return sorted({*range(every, total + 1, every), total})


def _estimate(parameters: int, count: int, dtype: str, work: Path, say: Callable[[str], None]) -> None:
    """Say what the trajectory takes on disk before it is made.

    Raises:
        ValueError: it would not fit.
    """
    need = parameters * count * (2 if dtype == "bf16" else 4) / 2**20
    free = shutil.disk_usage(work).free / 2**20
    say(
        f"the teacher's trajectory: {count} checkpoints in {dtype}, {need:,.0f} MiB in the store ({free:,.0f} MiB free)"
    )
    if need > free:
        raise ValueError(
            f"{count} checkpoints of the teacher need {need:,.0f} MiB, and {work} has {free:,.0f} MiB free: use "
            "objective.trajectory.dtype=bf16, a larger objective.trajectory.every, or runtime.store on another disk."
        )
