"""CLKD: class-aware logit distillation (arXiv 2211.14773), by the reading of third-party re-implementations.

No official code is known and the re-implementations disagree on the third term; none of it is verified.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from kdexp.config.schema import Weight
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice, exact, wide

TERMS = ("instance", "class", "cc")


def clkd(student_logits: Tensor, teacher_logits: Tensor, term: str, reduction: str = "mean") -> Tensor:
    """One term of CLKD on logits (B, C).

    Args:
        term: ``instance`` = rows of length 1, squared differences; ``class`` = columns of length 1 over the batch;
            ``cc`` = ||G_s - G_t||_F^2 / C^2 with G = Zc^T Zc / (C-1), Zc = logits minus their row mean.
        reduction: ``mean`` over B*C or ``sum``; ``cc`` has its own divisor and takes ``sum`` for it.
    """
    choice("term", term, TERMS)
    choice("reduction", reduction, ("mean", "sum"))
    student, teacher = wide(student_logits), wide(teacher_logits)
    if term == "cc":
        classes = student.shape[-1]
        return (_class_products(student) - _class_products(teacher)).square().sum() / classes**2
    axis = 1 if term == "instance" else 0
    squares = (F.normalize(student, dim=axis) - F.normalize(teacher, dim=axis)).square()
    return squares.mean() if reduction == "mean" else squares.sum()


def _class_products(logits: Tensor) -> Tensor:
    """(C, C) products of row-centred logits over C-1."""
    centred = logits - logits.mean(-1, keepdim=True)
    with exact(logits):
        return centred.T @ centred / (logits.shape[-1] - 1)


class CLKD(Objective):
    """lam*CE + mu*(L_instance + b*L_class) + nu*L_cc; classification only.

    Class and cc terms depend on who is in the batch: micro-batches do not equal one batch.

    Args:
        lam, mu, nu, b: weights.
        reduction: of the instance and class terms.
    """

    asks: ClassVar[tuple[str, ...]] = ("classes", "examples")
    batchwise = True

    def __init__(
        self, lam: Weight = 0.1, mu: Weight = 0.5, nu: Weight = 0.4, b: Weight = 2.0, reduction: str = "mean"
    ) -> None:
        super().__init__()
        choice("clkd.reduction", reduction, ("mean", "sum"))
        self.lam, self.mu, self.nu, self.b, self.reduction = lam, mu, nu, b, reduction

    def undivided(self) -> str:
        """Classes are compared over the batch."""
        return "compares how classes lie over a whole batch"

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the weighted sum of all terms."""
        assert teacher is not None
        logits, target = student["logits"], teacher["logits"].detach()
        instance, by_class = (clkd(logits, target, term, self.reduction) for term in ("instance", "class"))
        loss = self.lam * self.head.loss(student, batch) + self.mu * (instance + self.b * by_class)
        return loss + self.nu * clkd(logits, target, "cc", "sum")
