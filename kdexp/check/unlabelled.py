"""Rows that the teacher shall label: who can learn from them, and who needs somebody else's labels."""

from __future__ import annotations

from kdexp.common.registry import build
from kdexp.config.schema import Config
from kdexp.methods.base import listens, method
from kdexp.tasks.base import Task


def problems(config: Config, task: Task) -> list[str]:
    """Return what of a sound configuration cannot work with ``task.unlabelled``."""
    asked = config.task.get("unlabelled")
    if asked is None:
        return []
    where, wrong = f"task.unlabelled={asked}", []
    if not task.head.decides:
        wrong.append(f"{where}: the answers of the head {task.head.name} do not stand for labels; use null.")
    if not method(config.objective.method).unlabelled:
        wrong.append(
            f"{where}: objective.method={config.objective.method} learns from labelled rows only; use null, or an "
            "objective of another method (kd, att_kl, ted, pro_kd)."
        )
    return wrong + ([] if task.has_further else _without(config, where))


def _without(config: Config, where: str) -> list[str]:
    """Say who needs labels, where no training row has one."""
    wrong, init = [], build(config.init)
    none = f"{where} and no labelled training rows"
    if config.teacher.finetune:
        wrong.append(
            f"{none}: a teacher cannot be fine-tuned on them; name one that is a classifier already "
            "(teacher=local teacher.source=path:FOLDER teacher.finetune=false)."
        )
    if not listens(config):
        wrong.append(
            f"{none}: objective={config.objective.name} hears no teacher, so nothing says what is right; use kd."
        )
    if config.objective.start != "raw":
        wrong.append(f"{none}: objective.start={config.objective.start} begins with labels alone; use raw.")
    if config.objective.method != "distill":
        wrong.append(f"{none}: objective.method={config.objective.method} has stages that need labels; use kd.")
    if init.method is not None and method(init.method).inside(config) is None:
        wrong.append(f"{none}: init={init.name} has a stage that needs labels; use init=first.")
    return wrong


def settled(config: Config) -> tuple[Config, list[str]]:
    """Drop rows that the teacher would label from a run that hears none; a note where there were some."""
    if not build(config.task).has_further or listens(config):
        return config, []
    asked = config.task["unlabelled"]
    note = (
        f"task.unlabelled={asked} has no effect with objective={config.objective.name}, which hears no teacher: it "
        "learns from the labelled rows alone."
    )
    return config.model_copy(update={"task": {**config.task, "unlabelled": None}}), [note]
