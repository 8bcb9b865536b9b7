"""IKD counterpart: every text twice in a batch, as it is and perturbed (after arXiv 2209.09841; ours for texts)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from kdexp.common.registry import build
from kdexp.config import schema
from kdexp.config.schema import Config, Group, Share
from kdexp.heads.batch import Batch, Features, Targets
from kdexp.methods import distill
from kdexp.methods.base import Facts, Method
from kdexp.objectives.noise import uniform
from kdexp.objectives.views import token_noise
from kdexp.store.stage import Stage
from kdexp.tasks.base import Dataset
from kdexp.tasks.text import tokenizer
from kdexp.train.phase import Phase, Summary
from kdexp.train.teachers import Teacher


class Noise(Group):
    """``objective.noise``: what the second view is."""

    drop: Share = 0.15
    mode: Literal["delete", "mask"] = "mask"


class Settings(schema.Objective):
    """Group ``objective``."""

    views: Literal["both_noisy", "teacher_clean"] = "both_noisy"
    noise: Noise = Noise()


class IKD(Method):
    """One phase on two views of every text."""

    Settings: ClassVar[type[schema.Objective]] = Settings

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        objective, found = config.objective, []
        if objective.schedule != "single":
            found.append(f"objective.schedule={objective.schedule}: the two views are one phase; use single.")
        task = build(config.task)
        if task.reads != "texts":
            found.append(f"objective.method=ikd perturbs tokens, and task={task.name} has none: use kd.")
            return found
        moves = isinstance(objective, Settings) and objective.noise.mode == "delete"
        if moves and "positions" in task.head.abilities:
            found.append(
                f"objective.noise.mode=delete moves what follows, and labels of task={task.name} stand at positions: "
                "use objective.noise.mode=mask."
            )
        return found

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return the only phase of the student."""
        assert isinstance(config.objective, Settings)
        teacher = distill.teacher_stage(config, facts)
        terms, recipe = distill.phase_terms(config, "prediction"), distill.phase_recipe(config, "prediction")
        start = distill.start_stage(config, facts, teacher)
        more = {"views": config.objective.views, "noise": config.objective.noise.model_dump()}
        return distill.training(
            config, facts, "ikd.views", "prediction", terms, recipe, teacher, start, action="ikd.train_student",
            more=more,
        )  # fmt: skip


@dataclass
class Views(Dataset):
    """A split of texts whose batches hold every example twice: first all as they are, then all perturbed.

    What is dropped is a pure function of the step's seed, the example and the position.

    Attributes:
        whole: the split.
        drop: share of ordinary tokens that are dropped.
        mode: ``delete`` or ``mask``.
        special: ids that are never touched.
        pad, mask: ids of padding and of a masked token.
    """

    whole: Dataset
    drop: float
    mode: str
    special: list[int]
    pad: int
    mask: int

    def __post_init__(self) -> None:
        self.fixed = False

    def __len__(self) -> int:
        return len(self.whole)

    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Batch:
        """See :meth:`Dataset.collate`; 2B rows."""
        clean = self.whole.collate(index, step_seed, width)
        ids, real = clean.inputs["input_ids"], clean.inputs["attention_mask"]
        texts = len(ids) // len(clean)  # several where answers of a question are texts
        numbers = (clean.index[:, None] * texts + torch.arange(texts)).flatten()
        noise = uniform((step_seed or 0) % 65521, torch.zeros((), dtype=torch.long), numbers, ids.shape[1])
        special, drop = torch.isin(ids, torch.tensor(self.special)), noise < self.drop
        never = torch.full_like(ids, -1)

        def perturbed(values: torch.Tensor, mask: int) -> list[torch.Tensor]:
            return token_noise(values, real, special, drop, never, self.mode, self.pad, mask)

        noisy = dict(clean.inputs)
        noisy["input_ids"], noisy["attention_mask"] = perturbed(ids, self.mask)
        if "token_type_ids" in noisy and self.mode == "delete":
            noisy["token_type_ids"] = perturbed(noisy["token_type_ids"], 0)[0] * noisy["attention_mask"]
        inputs = {name: torch.cat([x, noisy[name]]) for name, x in clean.inputs.items()}
        labels = {name: torch.cat([x, x]) for name, x in clean.labels.items()}
        mask = None if clean.mask is None else inputs["attention_mask"]
        return replace(clean, inputs=inputs, mask=mask, labels=labels, index=clean.index.repeat(2))

    @property
    def targets(self) -> Targets:
        """The labels, once an example."""
        return self.whole.targets

    @property
    def costs(self) -> np.ndarray:
        """Of one view."""
        return self.whole.costs


def train_student(phase: Phase) -> Summary:
    """Train a student on both views; the teacher sees the same, or the clean one for both."""
    asked = phase.settings["noise"]
    reader: Any = tokenizer.of_teacher(phase.context.data_context(phase.recipe.max_length, phase.config.teacher))
    if asked["mode"] == "mask" and reader.mask_token_id is None:
        raise ValueError("objective.noise.mode=mask: this teacher's tokenizer has no mask token; use mode=delete.")
    ids = {"special": list(reader.all_special_ids), "pad": reader.pad_token_id, "mask": reader.mask_token_id or 0}
    data = {**phase.data(), "train": Views(phase.data()["train"], asked["drop"], asked["mode"], **ids)}
    model = phase.model()
    student = phase.student(model, data=data)
    teacher = phase.teacher(student, data)
    if teacher is not None and phase.settings["views"] == "teacher_clean":
        teacher = _clean(teacher)
    phase.train(student, teacher, data)
    phase.save(model)
    phase.measure(model)
    return phase.summary


def _clean(teacher: Teacher) -> Teacher:
    """Return a teacher that reads the clean half of a batch and answers for both."""

    def answer(batch: Batch) -> Features:
        said = teacher(batch.part(slice(0, len(batch) // 2)))
        return {name: torch.cat([x, x]) for name, x in said.items()}

    return answer
