"""DIST: distillation by correlation (Huang et al., NeurIPS 2022, arXiv 2205.10536; official code)."""

from __future__ import annotations

import logging
from typing import ClassVar

from torch import Tensor

from kdexp.config.schema import Temperature, Weight
from kdexp.heads.base import Head
from kdexp.objectives.base import Batch, Context, Features, Objective
from kdexp.objectives.common import alive, choice, idle, wide

log = logging.getLogger(__name__)

PARTS = ("total", "inter", "intra")


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    part: str = "total",
) -> Tensor:
    """T^2 * (beta * inter + gamma * intra) of the softmax at T of logits (B, C).

    Args:
        part: ``inter`` = 1 - mean over sentences of the Pearson correlation over classes; ``intra`` = 1 - mean over
            classes of the correlation over sentences; ``total``.
    """
    choice("part", part, PARTS)
    q, p = (wide(z) / temperature for z in (student_logits, teacher_logits.detach()))
    q, p = q.softmax(-1), p.softmax(-1)
    parts = {}
    if part != "intra":
        parts["inter"] = beta * _unlike(q, p) if part == "total" else _unlike(q, p)
    if part != "inter":
        parts["intra"] = gamma * _unlike(q.T, p.T) if part == "total" else _unlike(q.T, p.T)
    values = [*parts.values()]
    return temperature**2 * sum(values[1:], values[0])


def _unlike(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - mean over rows of Pearson's correlation, 1e-8 added to the product of norms; a constant row counts as 0."""
    a, b = (alive(x - x.mean(-1, keepdim=True)) for x in (student, teacher))
    norms = a.square().sum(-1).sqrt() * b.square().sum(-1).sqrt()
    return 1 - ((a * b).sum(-1) / (norms + 1e-8)).mean()


class DIST(Objective):
    """T^2 * (beta * inter + gamma * intra): correlations within sentences and within classes instead of equal numbers.

    Reduction: means over sentences and over classes. Mask: none needed. Power of T: 2. Units: sentences (``inter``);
    ``intra`` depends on the batch. Source: official code (beta = gamma = 1, T 1, CIFAR-100 T 4; weight 2 beside hard
    labels). Degenerate: on two classes ``inter`` is 0 or 2 a sentence, without a usable gradient (a warning says so;
    alone it is refused), and ``intra`` is one correlation counted twice; of one sentence ``intra`` is the constant 1;
    a constant row or column counts as uncorrelated, without a gradient.

    Args:
        beta, gamma: weights of inter and intra in ``total``.
        temperature: divides both sides' logits.
        part: ``total``, ``inter`` or ``intra``.
    """

    asks: ClassVar[tuple[str, ...]] = ("classes", "examples")

    def __init__(
        self, beta: Weight = 1.0, gamma: Weight = 1.0, temperature: Temperature = 1.0, part: str = "total"
    ) -> None:
        super().__init__()
        choice("dist.part", part, PARTS)
        if part != "total":
            idle(f"dist.part={part}", {"beta": (beta, 1.0), "gamma": (gamma, 1.0)})
        self.beta, self.gamma, self.temperature, self.part = beta, gamma, temperature, part
        self.batchwise = part == "intra" or (part == "total" and gamma > 0)

    def suits(self, head: Head) -> None:
        """Refuse two classes where the classes' correlations do not take part."""
        if head.width == 2 and not self.batchwise:
            raise ValueError(
                "dist has nothing to learn from 2 classes without its intra term: two probabilities of a sentence are "
                "always fully correlated. Set part=total or intra and gamma above 0, or take kd"
            )

    def setup(self, context: Context) -> None:
        super().setup(context)
        if context.head.width == 2 and self.part == "total":
            log.warning("dist: of 2 classes the inter term is 0 or 2 a sentence, so beta=%g teaches nothing", self.beta)

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        return dist_loss(student["logits"], teacher["logits"], self.beta, self.gamma, self.temperature, self.part)
