"""Cutting a teacher's weights to a narrower student, by one index plan, with proof that nothing was forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdexp.heads.batch import Batch
from kdexp.inits.copying import wanted
from kdexp.inits.cuts import factors, head_importance, neuron_importance, slice_linear
from kdexp.inits.narrow import Narrow, Plan, Scores, Sizes
from kdexp.models import shared_layers
from kdexp.models import source as contents
from kdexp.models.families import base as families

ROWS = 4096
"""Hidden states that are kept for principal directions."""

HIDDEN, HEADS, NEURONS, WHOLE = "hidden", "heads", "neurons", "whole"
AXES: dict[str, tuple[str, ...]] = {
    r"attention\.self\.(query|key|value)\.weight": (HEADS, HIDDEN),
    r"attention\.self\.(query|key|value)\.bias": (HEADS,),
    r"attention\.output\.dense\.weight": (HIDDEN, HEADS),
    r"intermediate\.dense\.weight": (NEURONS, HIDDEN),
    r"intermediate\.dense\.bias": (NEURONS,),
    r"(?<!attention\.)output\.dense\.weight": (HIDDEN, NEURONS),
    r"output\.dense\.bias": (HIDDEN,),
    r"LayerNorm\.(weight|bias)": (HIDDEN,),
    r"embeddings\.\w+_embeddings\.weight": (WHOLE, HIDDEN),
    r"(pooler|classifier|transform)\.dense\.weight|lm_head\.dense\.weight": (HIDDEN, HIDDEN),
    r"(pooler|classifier|transform)\.dense\.bias|lm_head\.dense\.bias|layer_norm\.(weight|bias)": (HIDDEN,),
    r"(classifier|out_proj|decoder|qa_outputs)\.weight": (WHOLE, HIDDEN),
    r"(classifier|out_proj|decoder|qa_outputs|predictions|lm_head)\.bias": (WHOLE,),
    r"(position|token_type)_ids": (WHOLE, WHOLE),
}
"""What the axes of a weight are, by the end of its name (BERT, RoBERTa and those built like them)."""


def axes(name: str) -> tuple[str, ...] | None:
    """Return what the axes of a weight are; None if its name is not known."""
    return next((kinds for end, kinds in AXES.items() if re.search(rf"(^|\.)({end})$", name)), None)


@torch.no_grad()
def apply(init: Narrow, student: nn.Module, teacher: nn.Module, texts: Sequence[Batch] = ()) -> dict[str, Any]:
    """Initialise a narrower student as ``init`` says.

    Args:
        init: the rule.
        student: freshly built (random weights); changed in place.
        teacher: the model that is cut.
        texts: batches of training examples, for a rule that asks for scores.

    Returns:
        As :func:`kdexp.inits.copying.apply`, and ``hidden``: the dimensions kept.

    Raises:
        ValueError: a weight whose place in the plan is not known, or which was not in the teacher's files.
    """
    chosen = init.layers(len(shared_layers.own_layers(student)), len(families.of(teacher).layers(teacher)))
    assert chosen is not None
    scores = score(teacher, texts) if init.scored else None
    plan = init.plan(sizes(teacher), sizes(student), chosen, scores)
    return cut(init, student, teacher, chosen, plan)


def sizes(model: Any) -> Sizes:
    """Return a model's width."""
    config, inner = model.config, families.of(model).intermediate_size
    return Sizes(config.hidden_size, config.num_attention_heads, getattr(config, inner))


@torch.no_grad()
def cut(init: Narrow, student: Any, teacher: Any, chosen: Sequence[int], plan: Plan) -> dict[str, Any]:
    """Write the parts that a plan keeps into a student, in place; returns what :func:`apply` returns."""
    mine = dict(student.named_parameters()) | dict(student.named_buffers())
    theirs = dict(teacher.named_parameters()) | dict(teacher.named_buffers())
    made_up: frozenset[str] = getattr(teacher, "made_up", frozenset())
    prefix, head_size = families.of(student).prefix(student), sizes(teacher).head_size
    copied, left = list[str](), list[str]()
    for name, tensor in mine.items():
        source, number = name, 0
        if name.startswith(prefix):
            place, _, rest = name[len(prefix) :].partition(".")
            number = int(place)
            source = f"{prefix}{chosen[number] - 1}.{rest}"
        elif not wanted(init, name, student):
            left.append(name)
            continue
        kinds = axes(name)
        if kinds is None or source not in theirs:
            raise ValueError(
                f"init={init.name}: how {name} is cut is not known for this architecture ({type(student).__name__}): "
                "use a student as wide as its teacher with init=spread, or init=random."
            )
        if source in made_up:
            raise ValueError(contents.no_weights(init.name, source))
        heads = [head * head_size + i for head in plan.heads[number] for i in range(head_size)]
        kept = {HIDDEN: plan.hidden, HEADS: heads, NEURONS: plan.neurons[number]}
        part = theirs[source]
        spans: list[Sequence[int]] = [kept.get(kind, range(size)) for kind, size in zip(kinds, part.shape, strict=True)]
        if part.dim() == 2 and part.is_floating_point():
            sliced = slice_linear(part, spans[0], spans[1])
            assert isinstance(sliced, Tensor)
            part = sliced
        elif part.is_floating_point():
            part = part[list(spans[0])]
        if part.shape != tensor.shape:
            if not (HEADS in kinds and init.shrinks_heads):
                raise ValueError(
                    f"init={init.name}: {name} {tuple(tensor.shape)} would be cut to {tuple(part.shape)}: choose other "
                    "sizes, or init=random."
                )
        else:
            tensor.copy_(part)
        copied.append(name)
    if init.shrinks_heads:
        _shrink(student, teacher, chosen, plan)
    report = {"layers": list(chosen), "copied": len(copied), "random": len(left), "random_names": left}
    return report | {"hidden": list(plan.hidden)}


def _shrink(student: nn.Module, teacher: nn.Module, chosen: Sequence[int], plan: Plan) -> None:
    """Write every head anew: the best approximation of its score and of its contribution in fewer dimensions."""
    small, large = sizes(student).head_size, sizes(teacher).head_size
    blocks = families.of(teacher).layers(teacher)
    for number, block in enumerate(shared_layers.own_layers(student)):
        source: Any = blocks[chosen[number] - 1]
        target: Any = block
        theirs, ours = source.attention.self, target.attention.self
        for place, head in enumerate(plan.heads[number]):
            rows, to = slice(head * large, (head + 1) * large), slice(place * small, (place + 1) * small)
            query, key, value = (_affine(m, rows, plan.hidden) for m in (theirs.query, theirs.key, theirs.value))
            left, right = factors(query.T @ key, small)
            change = (small / large) ** 0.25  # scores are divided by the root of the head's size
            for linear, maps in ((ours.query, left.T * change), (ours.key, right * change)):
                linear.weight[to], linear.bias[to] = maps[:, :-1].to(linear.weight), maps[:, -1].to(linear.bias)
            out = source.attention.output.dense.weight[plan.hidden][:, rows].double()
            hands, takes = factors(out @ value, small)
            ours.value.weight[to] = takes[:, :-1].to(ours.value.weight)
            ours.value.bias[to] = takes[:, -1].to(ours.value.bias)
            target.attention.output.dense.weight[:, to] = hands.to(ours.value.weight)


def _affine(linear: Any, rows: slice, columns: list[int]) -> Tensor:
    """[W b] of some rows and columns of a linear map, in float64."""
    return torch.cat([linear.weight[rows][:, columns], linear.bias[rows][:, None]], 1).double()


@torch.no_grad()
def score(teacher: nn.Module, texts: Sequence[Batch]) -> Scores:
    """Let a teacher read texts, without dropout, and note how active its parts are; padding is left out."""
    blocks, heads = families.of(teacher).layers(teacher), sizes(teacher).heads
    squares: dict[str, Tensor] = {}
    states: list[Tensor] = []
    with _listening(teacher) as heard:
        for batch in texts:
            heard.clear()
            teacher(**batch.inputs)
            for name, values in heard.items():
                kind = name.partition(".")[0]
                sizes_of = head_importance if kind == HEADS else neuron_importance
                given = (values.double(), heads, batch.mask) if kind == HEADS else (values.double(), batch.mask)
                squares[name] = squares.get(name, 0.0) + sizes_of(*given).square()
                if kind == HIDDEN and sum(map(len, states)) < ROWS:
                    real = values if batch.mask is None else values[batch.mask.bool()]
                    states.append(real.reshape(-1, values.shape[-1]).double()[:: max(1, len(blocks))])
    roots = {name: values.sqrt() for name, values in squares.items()}
    hidden = torch.stack([values for name, values in roots.items() if name.startswith(HIDDEN)]).sum(0)
    by_layer = [[roots[f"{kind}.{i}"] for i in range(len(blocks))] for kind in (HEADS, NEURONS)]
    return Scores(hidden, by_layer[0], by_layer[1], torch.cat(states)[:ROWS])


@contextmanager
def _listening(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect, while a model runs, what goes into both output maps of every block and what comes out of LayerNorms."""
    heard: dict[str, Tensor] = {}
    was, hooks = model.training, []

    def note_input(name: str) -> Any:
        return lambda module, given: heard.__setitem__(name, given[0])

    def note_output(name: str) -> Any:
        return lambda module, given, got: heard.__setitem__(name, got)

    for i, block in enumerate(families.of(model).layers(model)):
        parts: Any = block
        hooks.append(parts.attention.output.dense.register_forward_pre_hook(note_input(f"{HEADS}.{i}")))
        hooks.append(parts.output.dense.register_forward_pre_hook(note_input(f"{NEURONS}.{i}")))
    for name, module in families.of(model).base(model).named_modules():
        if isinstance(module, nn.LayerNorm):
            hooks.append(module.register_forward_hook(note_output(f"{HIDDEN}.{name}")))
    model.eval()
    try:
        yield heard
    finally:
        model.train(was)
        for hook in hooks:
            hook.remove()
