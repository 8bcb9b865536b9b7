"""Annealing-KD, phase 1: follow a growing share of the teacher's logits (Jafari et al. 2021, arXiv 2104.07163)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdexp.config.schema import Epochs
from kdexp.objectives.base import Batch, Features, Objective


def annealing_factors(epochs: int, tau_max: int, clamp: bool = True) -> list[float]:
    """Factor k/tau_max of each epoch; k starts at 1 and grows by 1 every int(epochs/tau_max) epochs.

    Args:
        clamp: never beyond 1; the released code runs past it if tau_max does not divide the epochs.

    Raises:
        ValueError: if there are fewer epochs than steps (the released code divides by zero).
    """
    if tau_max < 1 or epochs < tau_max:
        raise ValueError(
            f"annealing takes tau_max={tau_max} steps and needs at least as many epochs; there are {epochs}. "
            "Lower tau_max, or give the phase more epochs"
        )
    every = epochs // tau_max
    steps = [1 + epoch // every for epoch in range(epochs)]
    return [(min(k, tau_max) if clamp else k) / tau_max for k in steps]


class Annealing(Objective):
    """Mean over the head's outputs of (z_student - factor * z_teacher)^2, the factor growing from 1/tau_max to 1.

    Works on scores likewise (one number). Phase 2 is ``finetune``.

    Args:
        tau_max: number of steps, at most the phase's epochs; None = 7 (official README), or fewer epochs.
        clamp: keep the factor at 1 at most.
    """

    factor: Tensor

    def __init__(self, tau_max: Epochs | None = None, clamp: bool = True) -> None:
        super().__init__()
        self.tau_max, self.clamp = tau_max, clamp
        self.register_buffer("factor", torch.tensor(1.0 / (tau_max or 7)))

    def fits(self, epochs: int) -> None:
        """Refuse a phase that is shorter than the schedule."""
        self.begin_epoch(0, epochs)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set this epoch's factor."""
        tau_max = min(7, epochs) if self.tau_max is None else self.tau_max
        self.factor.fill_(annealing_factors(epochs, tau_max, self.clamp)[epoch])

    def units(self, batch: Batch) -> Tensor:
        """Units of the head."""
        return self.head.units(batch)

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss with the current factor."""
        assert teacher is not None
        return self.head.squared_error(student, teacher, batch, self.factor)
