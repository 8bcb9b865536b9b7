"""The student's way to the teacher's width: one linear map a matched layer (a base of hidden-state objectives)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from kdexp.objectives.base import Context, Features, Objective
from kdexp.objectives.common import choice, exact, layers_of, picked, some, targets


class Projected(Objective):
    """A hidden-state objective with a learned map W of the student's side, (B, L, D_student) -> (B, L, D_teacher).

    Args:
        projection: ``auto`` (only where widths differ), ``always``, or ``never`` (refuses unequal widths).
        share_projection: one map for all matched layers (TinyBERT's code) instead of one each.
        layer_reduce: ``sum`` or ``mean`` over matched layers.
    """

    needs: ClassVar[tuple[str, ...]] = ("hidden",)
    layers: ClassVar[str] = "hidden"
    answers: ClassVar[bool] = False

    def __init__(self, projection: str = "auto", share_projection: bool = False, layer_reduce: str = "sum") -> None:
        super().__init__()
        choice("projection", projection, ("auto", "always", "never"))
        choice("layer_reduce", layer_reduce, ("sum", "mean"))
        self.projection, self.share_projection, self.layer_reduce = projection, share_projection, layer_reduce
        self.maps = nn.ModuleList()

    def setup(self, context: Context) -> None:
        super().setup(context)
        assert context.teacher is not None
        wide_s, wide_t = context.student.hidden_size, context.teacher.hidden_size
        if self.projection == "never" and wide_s != wide_t:
            raise ValueError(
                f"projection=never compares hidden states as they are: the student's width is {wide_s}, the "
                f"teacher's {wide_t}. Take projection=auto, or a student as wide as the teacher"
            )
        if self.projection == "always" or wide_s != wide_t:
            count = 1 if self.share_projection else len(self.pairs)
            self.maps = nn.ModuleList(nn.Linear(wide_s, wide_t, bias=False) for _ in range(count))

    def matched(self, student: Features, teacher: Features) -> tuple[list[Tensor], list[Tensor]]:
        """Hidden states of matched layers, the student's mapped to the teacher's width, the teacher's constant."""
        ours = picked(student, "hidden", layers_of(self.pairs, 0))
        if len(self.maps):
            with exact(some(student)):
                ours = [self.maps[0 if self.share_projection else i](x) for i, x in enumerate(ours)]
        return ours, targets(teacher, "hidden", layers_of(self.pairs, 1))
