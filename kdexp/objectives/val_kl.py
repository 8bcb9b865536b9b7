"""Val-KL: divergence of value relations (MiniLM's second term, arXiv 2002.10957; How to Distill your BERT)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.config.schema import Count
from kdexp.objectives.attention import LayerPairs
from kdexp.objectives.base import Context
from kdexp.objectives.common import choice, mask_of, merge_heads, need_equal_heads, row_kl, scaled_scores, split_heads

VARIANTS = ("pad_aware", "as_coded")


def relation_kl(
    student: Tensor, teacher: Tensor, attention_mask: Tensor | None, heads: int, variant: str = "pad_aware"
) -> Tensor:
    """KL(teacher || student) of the relations softmax(X X^T / sqrt(D/heads)) of vectors X (B, L, D).

    Widths may differ: each side is split into ``heads`` of its own head size.

    Args:
        attention_mask: (B, L), 1 = real token.
        variant: ``pad_aware`` = padded keys left out, mean over real query rows and heads; ``as_coded`` = no mask at
            all, sum / (B*H*L).
    """
    choice("variant", variant, VARIANTS)
    ours, theirs = (scaled_scores(x, x) for x in (split_heads(student, heads), split_heads(teacher, heads)))
    return row_kl(ours, theirs, mask_of(variant, attention_mask), pad_rows=False, floor=None)


class ValKL(LayerPairs):
    """Sum over matched layers of the mean over real rows and heads of the value relations' KL.

    Settings of :class:`LayerPairs`, and

    Args:
        heads: number of relation heads; null = the models' own, which must then be equal.
    """

    needs: ClassVar[tuple[str, ...]] = ("value",)
    answers: ClassVar[bool] = False
    remedy: ClassVar[str] = "Set heads to a number that divides both widths."

    def __init__(self, heads: Count | None = None, variant: str = "pad_aware", layer_reduce: str = "sum") -> None:
        super().__init__(variant, layer_reduce)
        self.heads = heads

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.heads = relation_heads(self, context, self.heads, self.remedy)

    def layer_loss(self, student: dict[str, Tensor], teacher: dict[str, Tensor], mask: Tensor) -> Tensor:
        """:func:`relation_kl` of one layer's values."""
        assert self.heads is not None
        ours, theirs = merge_heads(student["value"]), merge_heads(teacher["value"])
        return relation_kl(ours, theirs, mask, self.heads, self.variant)


def relation_heads(objective: LayerPairs, context: Context, heads: int | None, remedy: str) -> int:
    """The number of relation heads: as asked, else the models' own equal one.

    Raises:
        ValueError: if the models' own differ, or if a width is no multiple of the number.
    """
    assert context.teacher is not None
    if heads is None:
        need_equal_heads(objective, context.student.num_heads, context.teacher.num_heads, remedy)
        return context.student.num_heads
    for side, shape in (("student", context.student), ("teacher", context.teacher)):
        if shape.hidden_size % heads:
            raise ValueError(
                f"{heads} relation heads need a width that is a multiple of them; the {side}'s is {shape.hidden_size}. "
                "Set heads to a number that divides both widths"
            )
    return heads
