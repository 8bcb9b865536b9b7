"""One update of LGTM: the teacher's step with its influence, then the student's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdexp.models import capture
from kdexp.objectives.finetune import cross_entropy
from kdexp.objectives.lgtm import lgtm_teacher_loss
from kdexp.tasks.base import Encoded
from kdexp.train import optim
from kdexp.train.batching import batches
from kdexp.train.student import Member, seed_of

EVAL_SEED = 101
"""Added to the run's seed for the order of the held-out rows."""


class Together(Member):
    """A student whose teacher learns with it.

    The teacher hangs on the student's first objective, so one optimiser and one checkpoint hold both; a step moves
    whichever of the two has gradients.

    Args:
        teacher: the classifier that learns beside the student.
        rows: split whose batches measure influence.
        own: ``objective.co_teacher``.
        seed, total: of the run; updates of the phase.
    """

    def __init__(
        self,
        model: nn.Module,
        terms: list,
        recipe: dict[str, Any],
        *rest: Any,
        teacher: nn.Module,
        rows: Encoded,
        own: dict[str, Any],
        seed: int,
        total: int,
    ) -> None:
        terms[0].objective.teacher = teacher
        super().__init__(model, terms, recipe, *rest)
        self.teacher, self.rows, self.own, self.seed, self.total = teacher, rows, own, seed, total
        self.teacher_recipe = {**recipe, "learning_rate": own["learning_rate"]}
        self.mine = [p for p in model.parameters() if p.requires_grad]
        self.its = [p for p in teacher.parameters() if p.requires_grad]

    def backward(self, batch: dict, target: Any, whole: dict, seed: int, step: int, micro: int) -> None:
        """Move the teacher, then add the student's gradients from its new answers."""
        torch.manual_seed(seed_of(seed, step, 63))
        self._move_teacher(batch, step)
        super().backward(batch, self._answers(batch), whole, seed, step, micro)

    def _forward(self, model: nn.Module, batch: dict, exact: bool = False) -> Tensor:
        """Return a model's logits (B, C) in float32; ``exact`` = without autocast, for finite differences."""
        cast = None if exact else self.cast
        with torch.autocast(batch["input_ids"].device.type, dtype=cast, enabled=cast is not None):
            return capture.forward(model, batch, frozenset())["logits"].float()

    @torch.no_grad()
    def _answers(self, batch: dict) -> dict[str, Tensor]:
        """Return the teacher's answers in evaluation mode."""
        self.teacher.eval()
        return {"logits": self._forward(self.teacher, batch)}

    def _teacher_loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: dict) -> Tensor:
        return lgtm_teacher_loss(
            student_logits, teacher_logits, batch["labels"], self.own["a_t"], self.own["temperature"]
        )

    def _move_teacher(self, batch: dict, step: int) -> None:
        """One step of the teacher on its loss, less its influence times a learning rate."""
        rate = optim.rate(step, self.total, self.teacher_recipe)
        with torch.no_grad():
            student_logits = self._forward(self.model, batch)
        self.teacher.train()
        loss = self._teacher_loss(student_logits, self._forward(self.teacher, batch), batch)
        gradients = list(torch.autograd.grad(loss, self.its, allow_unused=True))
        if self.own["influence"]:
            scale = rate if self.own["influence_rate"] == "teacher" else optim.rate(step, self.total, self.recipe)
            for i, influence in enumerate(self.influence(batch, step)):
                if gradients[i] is not None:
                    gradients[i] = gradients[i] - scale * influence
        for parameter, gradient in zip(self.its, gradients, strict=True):
            parameter.grad = gradient
        self._step(self.its, rate)

    def _step(self, parameters: Sequence[Tensor], rate: float) -> None:
        """Let the optimiser move these parameters (only they have gradients now)."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.recipe["clip"] is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.recipe["clip"])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def influence(self, batch: dict, step: int) -> list[Tensor]:
        """Return the finite difference of the teacher's gradients along the student's held-out gradient."""
        held = self._held_out(step, batch["input_ids"].device)
        logits = self._answers(batch)
        self.model.train()
        soft = sum(
            self.weights[n] * o({"logits": self._forward(self.model, batch)}, logits, batch)
            for n, o in self.objectives.items()
        )
        gradients = torch.autograd.grad(soft, self.mine)
        ahead = adam_ahead(self.optimizer, self.mine, gradients, optim.rate(step, self.total, self.recipe))
        self.model.eval()
        self.teacher.eval()
        with moved(self.mine, ahead):
            direction = torch.autograd.grad(
                cross_entropy(self._forward(self.model, held, True), held["labels"]), self.mine
            )
        norm = torch.stack([v.square().sum() for v in direction]).sum().sqrt()
        epsilon = float(self.own["epsilon"] / norm.clamp(min=1e-12))
        sides = []
        for sign in (1.0, -1.0):
            there = [p.detach() + sign * epsilon * v for p, v in zip(self.mine, direction, strict=True)]
            with torch.no_grad(), moved(self.mine, there):
                student_logits = self._forward(self.model, batch, True)
            loss = self._teacher_loss(student_logits, self._forward(self.teacher, batch, True), batch)
            sides.append(torch.autograd.grad(loss, self.its, allow_unused=True))
        self.model.train()
        zero = [torch.zeros_like(p) for p in self.its]
        return [z if a is None else (a - b) / (2 * epsilon) for z, a, b in zip(zero, *sides, strict=True)]

    def _held_out(self, step: int, device: torch.device) -> dict[str, Tensor]:
        """Return the held-out rows that belong to an update: cycled, in an order that only the seed decides."""
        size = min(self.recipe["batch_size"], len(self.rows))
        each = -(-len(self.rows) // size)
        stream = batches(self.rows.lengths, size, self.seed + EVAL_SEED, step // each, bucket=False)
        return {k: v.to(device) for k, v in self.rows.batch(stream[step % each]).items()}


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
