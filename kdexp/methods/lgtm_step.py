"""What LGTM's one stage does: the teacher's step with its influence, then the student's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from kdexp.config.schema import Recipe
from kdexp.heads.batch import Batch, Features
from kdexp.models import capture
from kdexp.objectives.lgtm import teacher_loss
from kdexp.tasks.base import Dataset, Subset
from kdexp.train import optim
from kdexp.train.batching import batches
from kdexp.train.step import Step
from kdexp.train.student import Student, seed_of

if TYPE_CHECKING:
    from kdexp.train.phase import Phase, Summary

EVAL_SEED = 101
"""Added to the run's seed for the order of the held-out rows."""


def learn_together(phase: Phase) -> Summary:
    """Train student and teacher together, measure both, keep the student."""
    own, seed, everything = phase.settings["co_teacher"], phase.settings["seed"], phase.data()
    data, rows = _split(everything, own, seed)
    phase.context.say(f"LGTM: {len(data['train'])} rows teach, {len(rows)} rows measure influence ({own['rows']})")
    model = phase.model()
    torch.manual_seed(seed)
    teacher = phase.teacher_model()
    if own["start"] == "finetuned":
        teacher = phase.teacher_model(phase.folder("teacher"))
    if own["zero_head"]:
        for each in (model, teacher):
            _zero(each)
    make = partial(Together, rows=rows, own=own, seed=seed, total=phase.updates(data))
    student = phase.student(model, data=data, beside=teacher, make=make)
    phase.train(student, data=data)
    phase.save(model)
    phase.measure(model)
    phase.summary.more = {"co_teacher": {"scores": phase.scores(teacher), "rows": len(rows)}}
    return phase.summary


def _split(data: dict[str, Dataset], own: dict[str, Any], seed: int) -> tuple[dict[str, Dataset], Dataset]:
    """Return the splits with fewer training rows, and the rows that measure influence."""
    if not own["influence"] or own["rows"] == "legacy_dev":
        return data, data["validation"]
    train = data["train"]
    order = np.random.default_rng([seed, 977]).permutation(len(train))
    aside = max(1, round(own["share"] * len(train)))
    if aside >= len(train):
        raise ValueError(
            f"objective.co_teacher.share={own['share']} of {len(train)} training rows leaves none to learn: lower it."
        )
    return {**data, "train": Subset(train, np.sort(order[aside:]))}, Subset(train, np.sort(order[:aside]))


def _zero(model: nn.Module) -> None:
    """Set the last linear map of a model's head to zero."""
    prefix = f"{model.base_model_prefix}."
    heads = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and not name.startswith(prefix)]
    for tensor in heads[-1].parameters():
        nn.init.zeros_(tensor)


class Together(Student):
    """A student whose teacher learns with it.

    One optimiser and one checkpoint hold both; a step moves whichever of the two has gradients.

    Args:
        step, recipe, folder, evaluate, metric, write, run: as of :class:`~kdexp.train.student.Student`.
        beside: the teacher, which learns with the student.
        rows: split whose batches measure influence.
        own: ``objective.co_teacher``.
        seed, total: of the run; updates of the phase.
    """

    def __init__(
        self,
        step: Step,
        recipe: Recipe,
        folder: Path,
        evaluate: Callable[[nn.Module], dict[str, float]] | None,
        metric: str,
        write: Callable[[int, int, dict[str, float]], None],
        run: Callable[..., tuple[Tensor, Tensor]],
        beside: nn.Module,
        *,
        rows: Dataset,
        own: dict[str, Any],
        seed: int,
        total: int,
    ) -> None:
        super().__init__(step, recipe, folder, evaluate, metric, write, run, beside)
        self.head = step.head
        capture.prepare(beside, frozenset())
        self.teacher, self.rows, self.own, self.seed, self.total = beside, rows, own, seed, total
        self.released = own["modes"] == "released"
        self.teacher_recipe = recipe.model_copy(update={"learning_rate": own["learning_rate"]})
        self.student_weights = [p for p in self.model.parameters() if p.requires_grad]
        self.teacher_weights = [p for p in beside.parameters() if p.requires_grad]

    def backward(
        self, batch: Batch, target: Features | None, whole: Batch | None, seed: int, step: int, micro: int
    ) -> None:
        """Move the teacher, then add the student's gradients from its new answers."""
        torch.manual_seed(seed_of(seed, step, 63))
        self._move_teacher(batch, step)
        super().backward(batch, self._answers(batch), whole, seed, step, micro)

    def _forward(self, model: nn.Module, batch: Batch, exact: bool = False) -> Features:
        """Return a model's answers in float32; ``exact`` = without autocast, for finite differences."""
        dtype = None if exact else self.step.dtype
        with torch.autocast(batch.device.type, dtype=dtype, enabled=dtype is not None):
            answers = capture.forward(model, self.head, batch)
            return {name: answers[name].float() for name in self.head.names}

    @torch.no_grad()
    def _answers(self, batch: Batch) -> Features:
        """Return the teacher's answers in evaluation mode."""
        self.teacher.eval()
        return self._forward(self.teacher, batch)

    def _teacher_loss(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        return teacher_loss(self.head, student, teacher, batch, self.own["a_t"], self.own["temperature"])

    def _move_teacher(self, batch: Batch, step: int) -> None:
        """One step of the teacher on its loss, less its influence times a learning rate."""
        rate = optim.rate(step, self.total, self.teacher_recipe)
        self.model.train(self.own["influence"] or not self.released)
        with torch.no_grad():
            student = self._forward(self.model, batch)
        self.model.train()
        self.teacher.train()
        answers = self._forward(self.teacher, batch)
        loss = self._teacher_loss(student, answers, batch)
        gradients = list(torch.autograd.grad(loss, self.teacher_weights, allow_unused=True))
        if self.own["influence"]:
            seen = {name: answer.detach() for name, answer in answers.items()} if self.released else None
            scale = rate if self.own["influence_rate"] == "teacher" else optim.rate(step, self.total, self.recipe)
            for i, influence in enumerate(self.influence(batch, step, seen)):
                if gradients[i] is not None:
                    gradients[i] = gradients[i] - scale * influence
        for parameter, gradient in zip(self.teacher_weights, gradients, strict=True):
            parameter.grad = gradient
        optim.clip([p for p in self.teacher_weights if p.grad is not None], self.recipe)
        optim.step(self.optimizer, self.recipe, rate)  # only the teacher has gradients now
        self.optimizer.zero_grad(set_to_none=True)

    def influence(self, batch: Batch, step: int, answers: Features | None = None) -> list[Tensor]:
        """Return the finite difference of the teacher's gradients along the student's held-out gradient.

        Args:
            answers: of the teacher, for the student's trial step; None = without its dropout.
        """
        held = self._held_out(step, batch.device)
        answers = answers or self._answers(batch)
        self.model.train()
        soft = sum(
            self.weights[n] * o(self._forward(self.model, batch), answers, batch) for n, o in self.objectives.items()
        )
        gradients = torch.autograd.grad(soft, self.student_weights)
        ahead = adam_ahead(self.optimizer, self.student_weights, gradients, optim.rate(step, self.total, self.recipe))
        self.model.train(self.released)
        self.teacher.eval()
        with moved(self.student_weights, ahead):
            hard = self.head.loss(self._forward(self.model, held, True), held)
            direction = torch.autograd.grad(hard, self.student_weights)
        self.model.eval()
        norm = torch.stack([v.square().sum() for v in direction]).sum().sqrt()
        epsilon = float(self.own["epsilon"] / norm.clamp(min=1e-12))
        sides = []
        for sign in (1.0, -1.0):
            there = [p.detach() + sign * epsilon * v for p, v in zip(self.student_weights, direction, strict=True)]
            with torch.no_grad(), moved(self.student_weights, there):
                student = self._forward(self.model, batch, True)
            loss = self._teacher_loss(student, self._forward(self.teacher, batch, True), batch)
            sides.append(torch.autograd.grad(loss, self.teacher_weights, allow_unused=True))
        self.model.train()
        zero = [torch.zeros_like(p) for p in self.teacher_weights]
        return [z if a is None else (a - b) / (2 * epsilon) for z, a, b in zip(zero, *sides, strict=True)]

    def _held_out(self, step: int, device: torch.device) -> Batch:
        """Return the held-out rows that belong to an update: cycled, in an order that only the seed decides."""
        size = min(self.recipe.batch_size, len(self.rows))
        each = -(-len(self.rows) // size)
        stream = batches(self.rows.costs, size, self.seed + EVAL_SEED, step // each, bucket=False)
        return self.rows.collate(stream[step % each]).to(device)


@contextmanager
def moved(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Give parameters other values for a while."""
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p, value in zip(parameters, values, strict=True):
            p.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, value in zip(parameters, before, strict=True):
                p.copy_(value)


@torch.no_grad()
def adam_ahead(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], gradients: Sequence[Tensor], rate: float
) -> list[Tensor]:
    """Return where AdamW's next step would bring parameters, without taking it.

    Args:
        optimizer: an AdamW that has them, with its moments so far.
        gradients: one a parameter.
        rate: the step's learning rate.
    """
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    out = []
    for p, gradient in zip(parameters, gradients, strict=True):
        group, state = of[id(p)], optimizer.state.get(p, {})
        one, two = group["betas"]
        count = float(state.get("step", 0.0)) + 1
        first = one * state.get("exp_avg", 0.0) + (1 - one) * gradient
        second = two * state.get("exp_avg_sq", 0.0) + (1 - two) * gradient.square()
        root = (second / (1 - two**count)).sqrt() + group["eps"]
        out.append(p * (1 - rate * group["weight_decay"]) - rate * (first / (1 - one**count)) / root)
    return out
