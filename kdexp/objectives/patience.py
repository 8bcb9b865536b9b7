"""PKD's patience: the student's intermediate [CLS] vectors follow the teacher's (Sun et al. 2019, arXiv 1908.09355)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.objectives.base import Batch, Context, Features, Objective
from kdexp.objectives.common import choice, layers_of, over_layers, picked, some, targets, wide

REDUCTIONS = ("mean_all_elements", "sum")


def patience(student: Tensor, teacher: Tensor, normalize: bool = True, reduction: str = "mean_all_elements") -> Tensor:
    """Squared distance of [CLS] vectors of M matched layers, (B, M, D) each, in float32.

    Args:
        normalize: scale every vector to length 1 first.
        reduction: ``mean_all_elements`` over B*M*D (released code; beta of 10 to 1000 belongs to it) or ``sum``.
    """
    choice("reduction", reduction, REDUCTIONS)
    student, teacher = wide(student), wide(teacher)
    if normalize:
        student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    squares = (student - teacher).square()
    return squares.mean() if reduction == "mean_all_elements" else squares.sum()


class Patience(Objective):
    """Mean over B*M*D of the squared difference of (normalised) [CLS] vectors; M matched layers. No mask needed.

    With no matched layer (a student of one layer) the term is 0.

    Args:
        normalize: vectors of length 1, as the paper is reported to do; the released grid has both.
        reduction: ``mean_all_elements`` or ``sum`` (then the weight must be divided by B*M*D).
        allow_last: accept mappings that match the student's last layer; PKD leaves that one to the logits.
    """

    needs: ClassVar[tuple[str, ...]] = ("hidden",)
    answers: ClassVar[bool] = False
    layers: ClassVar[str] = "attention"
    default_mapping: ClassVar[str] = "skip"

    def __init__(self, normalize: bool = True, reduction: str = "mean_all_elements", allow_last: bool = False) -> None:
        super().__init__()
        choice("patience.reduction", reduction, REDUCTIONS)
        self.normalize, self.reduction, self.allow_last = normalize, reduction, allow_last

    def setup(self, context: Context) -> None:
        super().setup(context)
        assert context.teacher is not None
        if context.student.hidden_size != context.teacher.hidden_size:
            raise ValueError(
                f"patience compares [CLS] vectors as they are: the student's width is {context.student.hidden_size}, "
                f"the teacher's {context.teacher.hidden_size}. Take a student as wide as its teacher, or hid_cls"
            )
        last = context.student.num_layers
        if last in layers_of(self.pairs, 0) and not self.allow_last:
            raise ValueError(
                f"patience matches student layers 1 to {last - 1} of {last}; the mapping {self.pairs} includes layer "
                f"{last}. Take mapping skip or last, or set allow_last=true"
            )

    def reads(self) -> str:
        """The first position."""
        return "first"

    def units(self, batch: Batch) -> Tensor | None:
        """Sentences; None with reduction ``sum``."""
        return None if self.reduction == "sum" else super().units(batch)

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all matched layers."""
        assert teacher is not None
        if not self.pairs:
            return over_layers([], "sum", some(student))
        ours = [x[:, 0] for x in picked(student, "hidden", layers_of(self.pairs, 0))]
        theirs = [x[:, 0] for x in targets(teacher, "hidden", layers_of(self.pairs, 1))]
        return patience(torch.stack(ours, 1), torch.stack(theirs, 1), self.normalize, self.reduction)
