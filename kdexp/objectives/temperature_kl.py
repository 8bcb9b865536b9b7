"""KD with a temperature of each label, or of each sentence (ours: no primary source is known)."""

from __future__ import annotations

import logging
from typing import ClassVar

import torch
from torch import Tensor

from kdexp.config.schema import Temperature
from kdexp.heads.base import Head
from kdexp.heads.classification import LABEL
from kdexp.objectives.base import Batch, Context, Features, Objective
from kdexp.objectives.common import choice, wide

log = logging.getLogger(__name__)

AXES = ("class", "example")


def temperature_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperatures: Tensor, axis: str = "class", times_T2: bool = False
) -> Tensor:
    """Mean over sentences of KL(teacher || student), logits (B, C) divided by temperatures on both sides.

    Args:
        temperatures: (C,), one a column (axis ``class``), or (B,), one a row (axis ``example``).
        times_T2: each row's KL times its squared temperature; axis ``example`` only.

    Raises:
        ValueError: ``times_T2`` with axis ``class``, for which no power of T is defined.
    """
    choice("axis", axis, AXES)
    if axis == "class" and times_T2:
        raise ValueError("times_T2 has no meaning for axis=class: each label has another T. Set it to false")
    t = temperatures.to(wide(student_logits).dtype)
    by = t[:, None] if axis == "example" else t[None, :]
    log_q, log_p = ((wide(z) / by).log_softmax(-1) for z in (student_logits, teacher_logits.detach()))
    rows = (log_p.exp() * (log_p - log_q)).sum(-1)
    return (rows * t.square()).mean() if times_T2 else rows.mean()


class TemperatureKL(Objective):
    """KL(teacher || student) where every label has a temperature of its own.

    axis ``class``: each label's logit is divided by that label's temperature on both sides; ``example``: a sentence's
    logits are divided by the temperature of its own label. Reduction: mean over sentences. Mask: none needed. Power
    of T: 2 inside the mean for ``example`` (``times_T2``), none is defined for ``class``. Units: sentences. Source:
    ours. Degenerate: one temperature for all labels is ``kd`` (a warning says so).

    Args:
        temperatures: one number, or a list with one a class, in the order of the task's label names.
        axis: ``class`` or ``example``.
        times_T2: times the squared temperature of each sentence; ``example`` only.
    """

    asks: ClassVar[tuple[str, ...]] = ("classes", "examples")

    by_label: Tensor

    def __init__(
        self, temperatures: list[Temperature] | Temperature = 2.0, axis: str = "class", times_T2: bool = False
    ) -> None:
        super().__init__()
        choice("temperature_kl.axis", axis, AXES)
        if axis == "class" and times_T2:
            raise ValueError("times_T2 has no meaning for axis=class: each label has another T. Set it to false")
        self.temperatures, self.axis, self.times_T2 = temperatures, axis, times_T2

    def suits(self, head: Head) -> None:
        """Refuse a list of another length than there are classes."""
        if isinstance(self.temperatures, list) and len(self.temperatures) != head.width:
            raise ValueError(
                f"temperature_kl.temperatures has {len(self.temperatures)} numbers, the task {head.width} classes: "
                "give one for each class, or one number for all"
            )

    def setup(self, context: Context) -> None:
        super().setup(context)
        given = self.temperatures if isinstance(self.temperatures, list) else [self.temperatures] * context.head.width
        if len(set(given)) == 1:
            log.warning("temperature_kl: all labels have the temperature %g, which is kd; give a list", given[0])
        self.register_buffer("by_label", torch.tensor(given, dtype=torch.float32))

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        by = self.by_label if self.axis == "class" else self.by_label[batch.labels[LABEL].long()]
        return temperature_kl(student["logits"], teacher["logits"], by, self.axis, self.times_T2)
