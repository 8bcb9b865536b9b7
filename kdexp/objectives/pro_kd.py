"""Checkpoint-following KD, our reading of Pro-KD (Rezagholizadeh et al. 2022, arXiv 2110.08532).

The paper's exact loss and schedule are not verified. One stage follows one teacher checkpoint with :class:`ProKD`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from kdexp.config.schema import Count, Temperature
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice

SOFTENINGS = ("logit_scale", "kl_temperature", "none")


def checkpoint_plan(checkpoints: int, epochs_per_checkpoint: int) -> list[tuple[int, float]]:
    """(checkpoint c from 1, softening factor c/n) of each student epoch, n checkpoints in order."""
    return [(c, c / checkpoints) for c in range(1, checkpoints + 1) for _ in range(epochs_per_checkpoint)]


def checkpoint_temperature(checkpoint: int, checkpoints: int, tau_max: float) -> float:
    """Temperature at checkpoint c of n: from tau_max at the first down to 1 at the last, linearly."""
    return 1.0 if checkpoints == 1 else tau_max + (1 - tau_max) * (checkpoint - 1) / (checkpoints - 1)


class ProKD(Objective):
    """Follow the logits of teacher checkpoint c of n, softened the more the earlier it is.

    Args:
        checkpoint, checkpoints: c and n; the plan sets them for each stage.
        softening: ``logit_scale`` = mean over outputs of (z_s - c/n z_t)^2; ``kl_temperature`` = KL at a temperature
            falling from ``tau_max`` to 1; ``none`` = logit_scale with factor 1.
        tau_max: first temperature of ``kl_temperature``.
        times_T2: of ``kl_temperature``.
    """

    follows_checkpoints: ClassVar[bool] = True
    softened_by: ClassVar[Mapping[str, str]] = {"tau_max": "temperature", "times_T2": "times_T2"}

    def __init__(
        self,
        checkpoint: Count = 1,
        checkpoints: Count = 1,
        softening: str = "logit_scale",
        tau_max: Temperature = 7.0,
        times_T2: bool = True,
    ) -> None:
        super().__init__()
        choice("pro_kd.softening", softening, SOFTENINGS)
        if not 1 <= checkpoint <= checkpoints:
            raise ValueError(f"pro_kd follows checkpoint 1 to {checkpoints}; got {checkpoint}")
        self.softening, self.times_T2 = softening, times_T2
        self.factor = 1.0 if softening == "none" else checkpoint_plan(checkpoints, 1)[checkpoint - 1][1]
        self.temperature = checkpoint_temperature(checkpoint, checkpoints, tau_max)

    def units(self, batch: Batch) -> Tensor:
        """Units of the head."""
        return self.head.units(batch)

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss against this checkpoint; scores are followed unsoftened under ``kl_temperature``."""
        assert teacher is not None
        if self.softening == "kl_temperature":
            return self.head.soft_loss(student, teacher, batch, self.temperature, times_T2=self.times_T2)
        return self.head.squared_error(student, teacher, batch, self.factor)
