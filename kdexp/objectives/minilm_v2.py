"""MiniLMv2: relations of queries, keys and values with a free number of heads (Wang et al. 2021, arXiv 2012.15828)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from kdexp.config.schema import Count
from kdexp.objectives.attention import LayerPairs
from kdexp.objectives.base import Context
from kdexp.objectives.common import choice, merge_heads
from kdexp.objectives.val_kl import relation_heads, relation_kl

NAMES = ("q", "k", "v")


def relation_kl_sum(
    student_q: Tensor,
    teacher_q: Tensor,
    student_k: Tensor,
    teacher_k: Tensor,
    student_v: Tensor,
    teacher_v: Tensor,
    heads: int,
    relations: Sequence[str] = ("q", "k", "v"),
    variant: str = "pad_aware",
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Unweighted sum of :func:`relation_kl` over the listed relations (q: Q-Q, k: K-K, v: V-V), inputs (B, L, D)."""
    sides = {"q": (student_q, teacher_q), "k": (student_k, teacher_k), "v": (student_v, teacher_v)}
    losses = [relation_kl(*sides[name], attention_mask, heads, variant) for name in relations]
    return sum(losses[1:], losses[0])


class MiniLMv2(LayerPairs):
    """Sum over relations of the mean over real rows and relation heads of KL(teacher || student); last layer.

    Vectors are first laid side by side, (B, L, H*d), and then cut into relation heads, so that unequal head counts
    and widths are matched position by position.

    Settings of :class:`LayerPairs`, and

    Args:
        heads: number of relation heads, a divisor of both widths; null = the teacher's heads.
        relations: which of ``q``, ``k``, ``v``.
    """

    needs: ClassVar[tuple[str, ...]] = ("query", "key", "value")
    answers: ClassVar[bool] = False
    default_mapping: ClassVar[str] = "last_only"

    def __init__(
        self,
        heads: Count | None = None,
        relations: Sequence[str] = ("q", "k", "v"),
        variant: str = "pad_aware",
        layer_reduce: str = "sum",
    ) -> None:
        super().__init__(variant, layer_reduce)
        for name in relations:
            choice("minilm_v2.relations", name, NAMES)
        if not relations:
            raise ValueError("minilm_v2.relations is empty; list at least one of q, k, v")
        self.heads, self.relations = heads, tuple(relations)

    def setup(self, context: Context) -> None:
        super().setup(context)
        assert context.teacher is not None
        heads = self.heads or context.teacher.num_heads
        self.heads = relation_heads(self, context, heads, "")

    def layer_loss(self, student: dict[str, Tensor], teacher: dict[str, Tensor], mask: Tensor) -> Tensor:
        """:func:`relation_kl_sum` of one layer."""
        assert self.heads is not None
        mine, its = ({kind: merge_heads(x) for kind, x in side.items()} for side in (student, teacher))
        return relation_kl_sum(
            mine["query"],
            its["query"],
            mine["key"],
            its["key"],
            mine["value"],
            its["value"],
            heads=self.heads,
            relations=self.relations,
            variant=self.variant,
            attention_mask=mask,
        )
