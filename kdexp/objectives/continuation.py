"""Continuation-KD: from a softened, forgiving teacher to hard labels (Jafari et al. 2022, arXiv 2212.05998)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from kdexp.config.schema import Amount, Epochs, NotNegative
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice, wide

VARIANTS = ("per_sample_squared_norm", "mean_mse")


def continuation_phi(epochs: int, tau_max: int, clamp: bool = True) -> list[float]:
    """Share phi of the teacher's logits at epochs 1..n: T starts at tau_max, falls by 1 every floor(n/tau_max).

    phi = 1 - (T-1)/tau_max, T being lowered before the loss (Algorithm 1).

    Args:
        clamp: keep T at 1 at least; the printed algorithm reaches 0 in the last epoch.
    """
    if tau_max < 1 or epochs < tau_max:
        raise ValueError(
            f"continuation takes tau_max={tau_max} steps and needs at least as many epochs; there are {epochs}. "
            "Lower tau_max, or give the phase more epochs"
        )
    every = epochs // tau_max
    values = []
    for epoch in range(1, epochs + 1):
        t = tau_max - epoch // every
        values.append(1 - ((max(t, 1) if clamp else t) - 1) / tau_max)
    return values


def continuation_psi(epochs: int, denominator: float, ramp_end: int) -> list[float]:
    """Weight psi of the hard labels at epochs 1..n: i/denominator up to ``ramp_end``, then 1."""
    return [epoch / denominator if epoch <= ramp_end else 1.0 for epoch in range(1, epochs + 1)]


def continuation_soft(
    student_logits: Tensor,
    teacher_logits: Tensor,
    phi: float | Tensor,
    margin: float,
    variant: str = "per_sample_squared_norm",
) -> Tensor:
    """Annealed hinge: what exceeds ``margin * phi`` of the squared gap student - phi * teacher, logits (B, C).

    Args:
        variant: ``per_sample_squared_norm`` = mean over sentences of max(0, sum_c gap^2 - margin*phi);
            ``mean_mse`` = max(0, mean over all logits of gap^2 - margin*phi). The paper does not settle which.
    """
    choice("variant", variant, VARIANTS)
    gap = (wide(student_logits) - phi * wide(teacher_logits)).square()
    if variant == "mean_mse":
        return (gap.mean() - margin * phi).clamp(min=0)
    return (gap.sum(-1) - margin * phi).clamp(min=0).mean()


class Continuation(Objective):
    """psi * task loss + (1 - psi) * hinge, psi growing and the teacher's share phi growing over epochs.

    The paper does not give the margin; 0 is our default (then the hinge is the annealed squared error).

    Args:
        tau_max: steps of phi, at most the epochs; None = 10 (paper), or the epochs if they are fewer.
        margin: of the hinge; its scale belongs to the variant.
        variant: ``per_sample_squared_norm`` or ``mean_mse`` (whose hinge sees a whole micro-batch, so that
            accumulation is not exact).
        denominator, ramp_end: of psi; null = 4/3 and 2/3 of the epochs, as the paper's 40 and 20 of 30.
        clamp: keep T at 1 at least.
    """

    asks: ClassVar[tuple[str, ...]] = ("examples",)

    psi: Tensor
    phi: Tensor

    def __init__(
        self,
        tau_max: Epochs | None = None,
        margin: NotNegative = 0.0,
        variant: str = "per_sample_squared_norm",
        denominator: Amount | None = None,
        ramp_end: Epochs | None = None,
        clamp: bool = True,
    ) -> None:
        super().__init__()
        choice("continuation.variant", variant, VARIANTS)
        self.tau_max, self.margin, self.variant = tau_max, margin, variant
        self.denominator, self.ramp_end, self.clamp = denominator, ramp_end, clamp
        self.register_buffer("psi", torch.tensor(0.0))
        self.register_buffer("phi", torch.tensor(1.0 / (tau_max or 10)))

    def fits(self, epochs: int) -> None:
        """Refuse a phase that is shorter than the schedule."""
        self.begin_epoch(0, epochs)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set this epoch's psi and phi."""
        denominator = 4 * epochs / 3 if self.denominator is None else self.denominator
        ramp_end = 2 * epochs // 3 if self.ramp_end is None else self.ramp_end
        tau_max = min(10, epochs) if self.tau_max is None else self.tau_max
        self.phi.fill_(continuation_phi(epochs, tau_max, self.clamp)[epoch])
        self.psi.fill_(continuation_psi(epochs, denominator, ramp_end)[epoch])

    def undivided(self) -> str:
        """One variant has its hinge over the batch."""
        return "" if self.variant != "mean_mse" else "(variant=mean_mse) has one hinge for a whole batch"

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss with the current psi and phi."""
        assert teacher is not None
        soft = continuation_soft(student["logits"], teacher["logits"].detach(), self.phi, self.margin, self.variant)
        return self.psi * self.head.loss(student, batch) + (1 - self.psi) * soft
