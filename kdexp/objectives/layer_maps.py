"""Which teacher layer each student layer is matched with.

Layers count from 1, as people do; 0 stands for the embedding output and is printed as ``emb``. A strategy is a
function ``(student_layers, teacher_layers, *, kind, ...) -> [(student layer, teacher layer), ...]``; ``kind`` is
``"attention"`` (layers only) or ``"hidden"`` (the embedding output can take part). k student layers, N teacher
layers, which fall into k blocks that end at b(j) = j * N / k, halves rounded up.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdexp.config.schema import Depth
from kdexp.models.depths import end_of_block
from kdexp.models.shared_layers import sps_plan

Pairs = list[tuple[int, int]]


def map_uniform_attention(teacher_layers: int, student_layers: int) -> list[int]:
    """0-based teacher layers of attention losses: b(j) - 1 for j = 1..k, the last layer of each block."""
    _fits(student_layers, teacher_layers)
    return [end_of_block(j, student_layers, teacher_layers) - 1 for j in range(1, student_layers + 1)]


def map_uniform_hidden(teacher_layers: int, student_layers: int) -> list[int]:
    """0-based positions in a hidden-state list that starts with the embedding output: b(j) for j = 0..k."""
    _fits(student_layers, teacher_layers)
    return [end_of_block(j, student_layers, teacher_layers) for j in range(student_layers + 1)]


def map_pkd(teacher_layers: int, student_layers: int, strategy: str, base: int = 1) -> list[int]:
    """Teacher layers of PKD's student layers 1..k-1: ``skip`` b(j), ``last`` N-k+j.

    Args:
        base: 1 for layer numbers, 0 for positions in a list without the embedding output.
    """
    _fits(student_layers, teacher_layers)
    if strategy not in ("skip", "last"):
        raise ValueError(f"strategy={strategy!r} is not PKD's; choose skip or last")
    inner, shift = range(1, student_layers), teacher_layers - student_layers
    ones = [end_of_block(j, student_layers, teacher_layers) if strategy == "skip" else shift + j for j in inner]
    return [layer - 1 + base for layer in ones]


def peakd_student_patience_layers(student_layers: int, model: str) -> list[int]:
    """1-based effective layers in Pea-KD's patience loss; ``model`` is ``plain`` or ``sps``, layers the owned ones."""
    if _peakd_effective(student_layers, model) == 9 and model == "sps":
        return [3, 6]
    return list(range(1, _peakd_effective(student_layers, model)))


def peakd_patience_map(student_layers: int, model: str, teacher_layers: int = 12) -> list[int]:
    """1-based teacher layers of Pea-KD's patience: PKD-Skip over effective layers, but 4, 8 for 6 shared ones."""
    effective = _peakd_effective(student_layers, model)
    layers = peakd_student_patience_layers(student_layers, model)
    if layers == [3, 6] and model == "sps":
        _fits(effective, teacher_layers)
        return [end_of_block(j, effective, teacher_layers) for j in layers]
    return map_pkd(teacher_layers, effective, "skip")


def _peakd_effective(student_layers: int, model: str) -> int:
    """Effective layers of a plain student or of one with shared parameters."""
    if model not in ("plain", "sps"):
        raise ValueError(f"model={model!r} is not known; choose plain or sps")
    return len(sps_plan(student_layers)) if model == "sps" else student_layers


def _fits(student_layers: int, teacher_layers: int) -> None:
    """Refuse a student that is deeper than its teacher."""
    if student_layers < 1 or student_layers > teacher_layers:
        raise ValueError(
            f"this mapping needs 1 to {teacher_layers} student layers for a teacher of {teacher_layers}; the student "
            f"has {student_layers}. Take a shallower student, or mapping=last_only or mapping=explicit"
        )


def _embeddings(kind: str, wanted: bool = True) -> Pairs:
    """The pair of the embedding outputs where it takes part."""
    return [(0, 0)] if kind == "hidden" and wanted else []


def uniform(student_layers: int, teacher_layers: int, *, kind: str, embeddings: bool = True) -> Pairs:
    """The last layer of each block: (j, b(j)) for j = 1..k; hidden losses also match the embedding outputs."""
    if kind == "hidden":
        positions = list(enumerate(map_uniform_hidden(teacher_layers, student_layers)))
        return positions if embeddings else positions[1:]
    return [(j + 1, t + 1) for j, t in enumerate(map_uniform_attention(teacher_layers, student_layers))]


def skip(student_layers: int, teacher_layers: int, *, kind: str) -> Pairs:
    """PKD-Skip: (j, b(j)) for j = 1..k-1."""
    return list(enumerate(map_pkd(teacher_layers, student_layers, "skip"), start=1))


def last(student_layers: int, teacher_layers: int, *, kind: str) -> Pairs:
    """PKD-Last: (j, N-k+j) for j = 1..k-1; the last student layer is left to the logits."""
    return list(enumerate(map_pkd(teacher_layers, student_layers, "last"), start=1))


def pea_kd(student_layers: int, teacher_layers: int, *, kind: str, own_layers: int | None = None) -> Pairs:
    """Pea-KD's patience: PKD-Skip over effective layers; 6 shared layers (9 effective) match (3, 4) and (6, 8).

    Args:
        student_layers: effective layers.
        own_layers: layers the student owns if it shares parameters, None for a plain student.
    """
    model, own = ("plain", student_layers) if own_layers is None else ("sps", own_layers)
    layers = peakd_student_patience_layers(own, model)
    return list(zip(layers, peakd_patience_map(own, model, teacher_layers), strict=True))


def follow_init(
    student_layers: int,
    teacher_layers: int,
    *,
    kind: str,
    init_layers: Sequence[int] | None,
    embeddings: bool = True,
) -> Pairs:
    """The layers that initialised the student (How to Distill your BERT, the paper's text): (j, init_layers[j]).

    Args:
        init_layers: 1-based teacher layers, one a student layer; None if the init copies no layers.
        embeddings: hidden losses also match the embedding outputs.
    """
    if init_layers is None:
        raise ValueError(
            "mapping=follow_init needs an init that copies teacher layers, and this one copies none. "
            "Take init=first, last, spread or layers, or another mapping"
        )
    if len(init_layers) != student_layers:
        raise ValueError(
            f"mapping=follow_init needs one copied layer a student layer: {len(init_layers)} copied layers "
            f"{list(init_layers)}, {student_layers} (effective) student layers. Take mapping=uniform"
        )
    pairs = list(enumerate(init_layers, start=1))
    _check_range(pairs, student_layers, teacher_layers, kind)
    return _embeddings(kind, embeddings) + pairs


def last_only(student_layers: int, teacher_layers: int, *, kind: str, teacher_layer: Depth | None = None) -> Pairs:
    """The student's last layer with the teacher's last one, or with ``teacher_layer`` (1-based)."""
    pairs = [(student_layers, teacher_layers if teacher_layer is None else teacher_layer)]
    _check_range(pairs, student_layers, teacher_layers, kind)
    return pairs


def upper_middle(student_layers: int, teacher_layers: int, *, kind: str) -> Pairs:
    """The student's last layer with teacher layer 7N/8, rounded: MiniLMv2's choice for deep teachers (21 of 24)."""
    return [(student_layers, max(1, round(teacher_layers * 7 / 8)))]


def first(student_layers: int, teacher_layers: int, *, kind: str, embeddings: bool = True) -> Pairs:
    """Layer j with layer j, from the bottom; hidden losses also match the embedding outputs."""
    _fits(student_layers, teacher_layers)
    return _embeddings(kind, embeddings) + [(j, j) for j in range(1, student_layers + 1)]


def one_to_many(student_layers: int, teacher_layers: int, *, kind: str, embeddings: bool = True) -> Pairs:
    """Student layer j with every teacher layer of its block, b(j-1)+1 to b(j)."""
    _fits(student_layers, teacher_layers)
    ends = [end_of_block(j, student_layers, teacher_layers) for j in range(student_layers + 1)]
    pairs = [(j, t) for j in range(1, student_layers + 1) for t in range(ends[j - 1] + 1, ends[j] + 1)]
    return _embeddings(kind, embeddings) + pairs


def combine(student_layers: int, teacher_layers: int, *, kind: str) -> Pairs:
    """Every student layer with every teacher layer, embedding outputs included (for losses that concatenate)."""
    start = 0 if kind == "hidden" else 1
    return [(s, t) for s in range(start, student_layers + 1) for t in range(start, teacher_layers + 1)]


def explicit(student_layers: int, teacher_layers: int, *, kind: str, pairs: Sequence[Sequence[Any]]) -> Pairs:
    """Pairs as they are given: [[student, teacher], ...], 1-based, ``emb`` or 0 for the embedding output."""
    if not pairs:
        raise ValueError("mapping=explicit needs mapping.pairs, for example mapping.pairs=[[1,4],[2,8],[3,12]]")
    out = []
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f"a pair of mapping.pairs is [student layer, teacher layer]; got {pair!r}")
        out.append((_layer(pair[0]), _layer(pair[1])))
    _check_range(out, student_layers, teacher_layers, kind)
    return out


def _layer(value: Any) -> int:
    """A layer number from config: an integer, or ``emb``."""
    if value == "emb":
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"a layer of mapping.pairs is a whole number from 1, or emb; got {value!r}")
    return value


def _check_range(pairs: Pairs, student_layers: int, teacher_layers: int, kind: str) -> None:
    """Refuse layers that do not exist, or the embedding output where it has no such features."""
    low = 0 if kind == "hidden" else 1
    for s, t in pairs:
        if not (low <= s <= student_layers and low <= t <= teacher_layers):
            rule = "1 is the first layer" + (", emb the embedding output" if low == 0 else ", emb is not offered here")
            raise ValueError(
                f"mapping {_name(s)} <- {_name(t)} does not exist: student layers {low or 1} to {student_layers}, "
                f"teacher layers {low or 1} to {teacher_layers} ({rule}). Correct the pair"
            )


STRATEGIES: dict[str, Callable[..., Pairs]] = {
    f.__name__: f
    for f in (uniform, skip, last, pea_kd, follow_init, last_only, upper_middle, first, one_to_many, combine, explicit)
}


FACTS = frozenset({"student_layers", "teacher_layers", "kind", "init_layers", "own_layers"})
"""What a strategy is told; its other parameters are options of a mapping."""


def resolve(
    mapping: Mapping[str, Any] | str,
    objective_class: type[Any],
    student_layers: int,
    teacher_layers: int,
    init_layers: Sequence[int] | None = None,
    own_layers: int | None = None,
) -> Pairs:
    """The matched layers of one objective term.

    Args:
        mapping: a name, or the config ``{name: ..., options}``; ``auto`` is the objective's own default.
        objective_class: tells how layers are counted (``layers``) and its ``default_mapping``.
        student_layers, teacher_layers: effective layers.
        init_layers: 1-based teacher layers that initialised the student, if any.
        own_layers: layers the student owns if it shares parameters (Pea-KD), else None.

    Raises:
        ValueError: unknown name or option, or a mapping that these depths do not allow.
    """
    kind = objective_class.layers
    if kind == "none":
        return []
    options = {"name": mapping} if isinstance(mapping, str) else dict(mapping)
    name = options.pop("name", "auto")
    if name == "auto":
        name, options = objective_class.default_mapping, {}
    if name not in STRATEGIES:
        raise ValueError(f"mapping={name} is not known; choose one of auto, {', '.join(STRATEGIES)}")
    facts: dict[str, dict[str, Any]] = {
        "follow_init": {"init_layers": init_layers},
        "pea_kd": {"own_layers": own_layers},
    }
    strategy = STRATEGIES[name]
    unknown = set(options) - _options(strategy)
    if unknown:
        known = ", ".join(sorted(_options(strategy))) or "none"
        raise ValueError(f"mapping={name} has no option {', '.join(sorted(unknown))}; its options: {known}")
    return strategy(student_layers, teacher_layers, kind=kind, **facts.get(name, {}), **options)


def _options(strategy: Callable[..., Pairs]) -> set[str]:
    """Names that a config may set for a strategy."""
    return set(inspect.signature(strategy).parameters) - FACTS


def _name(layer: int) -> str:
    return "emb" if layer == 0 else str(layer)


def describe(pairs: Pairs) -> str:
    """A small table for people, one line a pair."""
    if not pairs:
        return "student layer <- teacher layer\n(no layers are matched)"
    lines = [f"{_name(s):>13} <- {_name(t)}" for s, t in pairs]
    return "\n".join(["student layer <- teacher layer", *lines])
