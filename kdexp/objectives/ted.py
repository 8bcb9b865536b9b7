"""TED: task-aware layer-wise distillation (Liang et al. 2023, arXiv 2210.01351) and its baseline LWD.

Stage I trains a small filter and task head on chosen layers of each (frozen) model, stage II matches the filters'
outputs. Formulas follow the released code: the mean over layers, not the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.config.schema import Count, Share
from kdexp.objectives.base import Batch, Context, Features, Objective
from kdexp.objectives.common import (
    OfTokens,
    choice,
    exact,
    layers_of,
    mask_for,
    over_layers,
    picked,
    targets,
)
from kdexp.objectives.hid_seq import VARIANTS, hidden_mse

if TYPE_CHECKING:
    from pathlib import Path


def ted_layer_mse(
    layers: list[dict[str, Tensor]],
    attention_mask: Tensor | None = None,
    variant: str = "as_coded",
    output: str = "mean",
) -> Tensor | list[Tensor]:
    """Mean squared difference of student and teacher filter outputs y = x W^T + b.

    Args:
        layers: one dict a matched layer: ``student_hidden`` (B, L, D_s), ``teacher_hidden`` (B, L, D_t), optional
            ``student_weight``, ``student_bias``, ``teacher_weight``, ``teacher_bias``. A side without a weight is
            taken as it is (LWD has no teacher filter).
        variant: ``as_coded`` = padding included, ``pad_aware`` = real tokens only.
        output: ``per_layer`` list, ``mean`` (released code) or ``sum`` over layers.
    """
    choice("output", output, ("per_layer", "mean", "sum"))
    losses = [
        hidden_mse(_filtered(layer, "student"), _filtered(layer, "teacher"), attention_mask, variant)
        for layer in layers
    ]
    return losses if output == "per_layer" else over_layers(losses, output, losses[0])


def _filtered(layer: dict[str, Tensor], side: str) -> Tensor:
    """The filter's output of one side, in float32 also under autocast."""
    hidden, weight = layer[f"{side}_hidden"], layer.get(f"{side}_weight")
    if weight is None:
        return hidden
    with exact(hidden):
        return F.linear(hidden, weight, layer.get(f"{side}_bias"))


class Filter(nn.Module):
    """One filter, (B, L, D_in) -> (B, L, D_out): a linear map, or Linear(D_in, D_in), GELU, Linear(D_in, D_out)."""

    def __init__(self, width: int, out: int, nonlinear: bool = False, std: float = 0.02) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width) if nonlinear else None
        self.linear = nn.Linear(width, out)
        for layer in (self.inner, self.linear):
            if layer is not None:
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)

    def hidden(self, x: Tensor) -> Tensor:
        """What enters the last linear map."""
        if self.inner is None:
            return x
        with exact(x):
            return F.gelu(self.inner(x))

    def forward(self, x: Tensor) -> Tensor:
        """The filter's output."""
        return _filtered({"x_hidden": self.hidden(x), "x_weight": self.linear.weight, "x_bias": self.linear.bias}, "x")


class TedFilters(Objective):
    """Stage I: filters and task heads on layers of ONE model (called the student here), its backbone frozen.

    Mean over filters of the task loss of each filter's own head, a small one of the task's kind (for classes and
    scores: pooler on the first token of the filter's output, dropout, linear). The heads are thrown away afterwards;
    ``filters`` goes on to :class:`TedMatch`.

    Args:
        output: width of the filters' outputs; null = the model's own.
        nonlinear: two linear maps with a GELU between.
        dropout: of the heads.
    """

    needs: ClassVar[tuple[str, ...]] = ("hidden",)
    answers: ClassVar[bool] = False
    layers: ClassVar[str] = "attention"
    uses_teacher: ClassVar[bool] = False
    asks: ClassVar[tuple[str, ...]] = ("small",)

    def __init__(self, output: Count | None = None, nonlinear: bool = False, dropout: Share = 0.1) -> None:
        super().__init__()
        self.output, self.nonlinear, self.dropout = output, nonlinear, dropout

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.where = layers_of(self.pairs, 0)
        width = context.student.hidden_size
        out = self.output or width
        self.filters = nn.ModuleList(Filter(width, out, self.nonlinear) for _ in self.where)
        self.heads = nn.ModuleList(self.small(context, out) for _ in self.where)

    def small(self, context: Context, width: int) -> nn.Module:
        """Make the head of one filter."""
        return context.head.small(width, self.dropout)

    def asked(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the hidden states that a filter reads."""
        return hidden

    def units(self, batch: Batch) -> Tensor:
        """Units of the head."""
        return self.head.units(batch)

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the mean over filters of the task loss."""
        hidden = [self.asked(x, batch) for x in targets(student, "hidden", self.where)]
        with exact(hidden[0]):
            answers = [head(f(x)) for head, f, x in zip(self.heads, self.filters, hidden, strict=True)]
        losses = [self.head.loss(answer, batch) for answer in answers]
        return over_layers(losses, "mean", losses[0])


class TedMatch(OfTokens):
    """Stage II's layer term: mean over layers of MSE(student filter output, teacher filter output).

    Default mapping: uniform over layers. LWD is ``teacher_filter=identity``: raw teacher states, random linear
    student filters. With ``teacher_filter=trained`` the forward pass refuses to run before
    :meth:`load_filters` has brought the filters of stage I.

    Args:
        teacher_filter: ``trained`` (TED) or ``identity`` (LWD).
        output: width of the filters' outputs; null = the teacher's width.
        nonlinear: as in stage I.
        variant: ``pad_aware``, or ``as_coded`` (padding inside the mean).
        layer_reduce: ``mean`` (released code) or ``sum`` (the formula as restated); the weight belongs to one.
    """

    needs: ClassVar[tuple[str, ...]] = ("hidden",)
    answers: ClassVar[bool] = False
    layers: ClassVar[str] = "attention"

    def __init__(
        self,
        teacher_filter: str = "trained",
        output: Count | None = None,
        nonlinear: bool = False,
        variant: str = "pad_aware",
        layer_reduce: str = "mean",
    ) -> None:
        super().__init__()
        choice("teacher_filter", teacher_filter, ("trained", "identity"))
        choice("variant", variant, VARIANTS)
        choice("layer_reduce", layer_reduce, ("mean", "sum"))
        self.teacher_filter, self.output, self.nonlinear = teacher_filter, output, nonlinear
        self.variant, self.layer_reduce = variant, layer_reduce
        self.loaded = teacher_filter == "identity"
        self.register_load_state_dict_post_hook(TedMatch._restored)

    @staticmethod
    def _restored(module: TedMatch, keys: Any) -> None:
        """A checkpoint of this objective brings its filters back."""
        module.loaded = module.loaded or not keys.missing_keys

    def setup(self, context: Context) -> None:
        super().setup(context)
        assert context.teacher is not None
        out = self.output or context.teacher.hidden_size
        if self.teacher_filter == "identity" and out != context.teacher.hidden_size:
            raise ValueError(
                f"teacher_filter=identity compares with the teacher's own width {context.teacher.hidden_size}, but "
                f"output={out}. Leave output null"
            )
        self.filters = nn.ModuleList(Filter(context.student.hidden_size, out, self.nonlinear) for _ in self.pairs)
        self.teacher_filters = nn.ModuleList(
            Filter(context.teacher.hidden_size, out, self.nonlinear)
            for _ in (self.pairs if self.teacher_filter == "trained" else [])
        )
        self.teacher_filters.requires_grad_(False)

    def load_filters(self, student: dict[str, Any], teacher: dict[str, Any]) -> None:
        """Take the ``filters`` of two stage-I objectives (state dicts of :attr:`TedFilters.filters`), all of them.

        Raises:
            ValueError: if a filter is missing, superfluous or of another size.
        """
        for name, module, state in (("student", self.filters, student), ("teacher", self.teacher_filters, teacher)):
            try:
                module.load_state_dict(state, strict=True)
            except RuntimeError as error:
                raise ValueError(
                    f"the {name}'s filters of stage I do not fit stage II: {' '.join(str(error).split())} Use the same "
                    "mapping, output and nonlinear in both stages"
                ) from error
        self.loaded = True

    def inherit(self, folders: dict[str, Path]) -> None:
        """Take the filters from the results of stage I (roles ``student_filters`` and ``teacher_filters``).

        Raises:
            ValueError: ``teacher_filter=trained`` in a plan without stage I, or filters that do not fit.
        """
        if self.teacher_filter != "trained":
            return
        roles = ("student_filters", "teacher_filters")
        if not set(roles) <= set(folders):
            raise ValueError(
                "teacher_filter=trained needs the filters of stage I: set objective.method=ted "
                "(objective=ted), or teacher_filter=identity (objective=lwd)"
            )
        from safetensors.torch import load_file

        self.load_filters(*(load_file(folders[role] / "filters.safetensors") for role in roles))

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all matched layers."""
        assert teacher is not None
        assert self.loaded, "TED's filters of stage I were not loaded"
        ours = picked(student, "hidden", layers_of(self.pairs, 0))
        theirs = targets(teacher, "hidden", layers_of(self.pairs, 1))
        layers = []
        for i, (s, t) in enumerate(zip(ours, theirs, strict=True)):
            mine = cast(Filter, self.filters[i])
            layer = {"student_hidden": mine.hidden(s), "student_weight": mine.linear.weight}
            layer |= {"student_bias": mine.linear.bias, "teacher_hidden": t}
            if len(self.teacher_filters):
                its = cast(Filter, self.teacher_filters[i])
                layer |= {"teacher_hidden": its.hidden(t), "teacher_weight": its.linear.weight}
                layer["teacher_bias"] = its.linear.bias
            layers.append(layer)
        return cast(Tensor, ted_layer_mse(layers, mask_for(batch, ours[0]), self.variant, self.layer_reduce))
