"""One forward pass of a student with its objectives: what torch.compile compiles and what a parallel wrapper wraps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdexp.heads.base import Head
from kdexp.heads.batch import Batch, Features
from kdexp.models import capture, places, reach
from kdexp.objectives.base import Objective


@dataclass(frozen=True)
class Term:
    """One weighted objective of a sum."""

    name: str
    weight: float
    objective: Objective


class Step(nn.Module):
    """A model, its head and its weighted objectives, as one function from a batch to a loss.

    Args:
        model: the student.
        head: what it answers.
        terms: weighted objectives, already set up.
        dtype: of autocast for the model, None for full precision; objectives always compute in float32.
    """

    def __init__(self, model: nn.Module, head: Head, terms: Sequence[Term], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.model, self.head, self.dtype = model, head, dtype
        self.objectives = nn.ModuleDict({t.name: t.objective for t in terms})
        self.weights = {t.name: float(t.weight) for t in terms}
        self.want = capture.wanted([t.objective for t in terms], 0)
        self.answers = capture.answers_wanted([t.objective for t in terms], 0)
        reach.install(model)
        places.install(model)

    def listeners(self) -> list[Objective]:
        """Return the objectives in their order."""
        return [cast(Objective, o) for o in self.objectives.values()]

    def forward(self, batch: Batch, target: Features | None, shares: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of all objectives and each one's own value.

        Args:
            batch: some examples.
            target: the teacher's features for them, or None if no objective listens to one.
            shares: for each objective, this micro-batch's share of the whole batch (1 without accumulation).

        Returns:
            A scalar and a vector (terms,), in the order of the objectives.
        """
        device = batch.device.type
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype is not None):
            features = capture.forward(self.model, self.head, batch, self.want, self.answers)
        with torch.autocast(device, enabled=False):
            values = [o(features, target, batch) * shares[name] for name, o in self.objectives.items()]
            total = sum(self.weights[name] * value for name, value in zip(self.objectives, values, strict=True))
        return cast(Tensor, total), torch.stack([value.detach() for value in values])


def run_step(step: Any, batch: Batch, target: Features | None, shares: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Run a :class:`Step`, or what wraps one: the function that is compiled once a process for all of them."""
    return step(batch, target, shares)
