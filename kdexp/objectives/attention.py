"""Attention objectives: scores of matched layers from captured queries and keys (a base of attention objectives)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.objectives.base import Batch, Context, Features
from kdexp.objectives.common import (
    OfTokens,
    choice,
    layers_of,
    mask_for,
    need_equal_heads,
    over_layers,
    picked,
    scaled_scores,
    some,
    targets,
)


class LayerPairs(OfTokens):
    """A loss on each matched layer, summed or averaged over layers; subclasses give :meth:`layer_loss`.

    Args:
        variant: ``pad_aware`` (padding left out on both sides) or ``as_coded`` (as the released code does).
        layer_reduce: ``sum`` or ``mean`` over matched layers.
    """

    layers: ClassVar[str] = "attention"
    answers: ClassVar[bool] = False
    variants: ClassVar[tuple[str, ...]] = ("pad_aware", "as_coded")
    remedy: ClassVar[str] = "Give both the same number of heads (student.num_heads), or take minilm_v2."

    def __init__(self, variant: str = "pad_aware", layer_reduce: str = "sum") -> None:
        super().__init__()
        choice("variant", variant, self.variants)
        choice("layer_reduce", layer_reduce, ("sum", "mean"))
        self.variant, self.layer_reduce = variant, layer_reduce

    def setup(self, context: Context) -> None:
        super().setup(context)
        assert context.teacher is not None
        if self.same_heads:
            need_equal_heads(self, context.student.num_heads, context.teacher.num_heads, self.remedy)

    def layer_loss(self, student: dict[str, Tensor], teacher: dict[str, Tensor], mask: Tensor) -> Tensor:
        """Loss of one matched layer.

        Args:
            student, teacher: the needed kinds of this layer by name, each (B, H, L, d) in float32.
            mask: (B, L), 1 = real token.
        """
        raise NotImplementedError

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all matched layers."""
        assert teacher is not None
        ours = {kind: picked(student, kind, layers_of(self.pairs, 0)) for kind in self.needs}
        theirs = {kind: targets(teacher, kind, layers_of(self.pairs, 1)) for kind in self.needs}
        losses = [
            self.layer_loss(
                {kind: ours[kind][i] for kind in self.needs},
                {kind: theirs[kind][i] for kind in self.needs},
                mask_for(batch, ours[self.needs[0]][i]),
            )
            for i in range(len(self.pairs))
        ]
        self.note(losses)
        return over_layers(losses, self.layer_reduce, some(student))


def scores_of(features: dict[str, Tensor]) -> Tensor:
    """Scores q k^T / sqrt(d) of one layer, (B, H, L, L), no mask."""
    return scaled_scores(features["query"], features["key"])
