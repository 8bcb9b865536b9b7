"""From the sweeper's YAML to a list of points: products, paired lists, unions, and forms of a study by scale.

A *form* is what a study writes under ``hydra.sweeper``::

    params: {objective: "kd,hid_seq", seed: [1, 2]}      every combination
    zip: [{task: [rte, qnli], recipe.epochs: [10, 3]}]   lists that go in step
    set: {recipe.batch_size: 16}                         one value, the same for all
    union: [{params: {...}}, {params: {...}}]            sub-grids one after another; what is above multiplies each
    exclude: [{where: {init: layers_*, student: l6}, reason: "..."}]
    scales: {desk: {params: {task: rte}}}                other forms of the same study; scale=desk chooses one

Everything here is about texts such as ``seed=1``; nothing is composed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from math import prod
from typing import Any

from kdexp.common.problems import near

FORM = ("params", "zip", "set", "union", "exclude", "scales")
"""Keys a form may have."""

MOST_POINTS = 100_000
"""Points of a grid, unless ``hydra.sweeper.most_points`` says otherwise: composing so many takes an hour."""

Parse = Callable[[str], Any]  # an override's text -> Hydra's Override
Assignment = dict  # dict[str, str]: key without its prefix -> the whole override, such as {"seed": "seed=1"}


@dataclass(frozen=True)
class Exclusion:
    """Points that make no sense: all of ``where`` holds; values may be lists and may hold ``*``."""

    where: dict[str, Any]
    reason: str


@dataclass
class Combination:
    """One point before composition, and the exclusions that were written above it."""

    assignment: Assignment
    exclusions: list[Exclusion] = field(default_factory=list)


def choose_form(form: Mapping[str, Any], scale: str) -> dict[str, Any]:
    """Return the form that ``scale`` names: the base form, or the base with ``scales[scale]`` laid over it.

    ``params`` and ``set`` are merged key by key (null removes a key); ``zip``, ``union`` and ``exclude`` are replaced.

    Raises:
        ValueError: the scale is not declared, or a form has unknown keys.
    """
    _check_keys(form, FORM, "hydra.sweeper")
    scales = form.get("scales") or {}
    base = {key: copy.deepcopy(form.get(key)) for key in FORM if key != "scales"}
    if scale == "full":
        return base
    if scale not in scales:
        known = ", ".join(["full", *scales])
        raise ValueError(f"scale={scale}: this study has no such form; it knows {known}.")
    over = scales[scale] or {}
    _check_keys(over, FORM[:-1], f"hydra.sweeper.scales.{scale}")
    for key in ("params", "set"):
        merged = {**(base.get(key) or {}), **(over.get(key) or {})}
        base[key] = {name: value for name, value in merged.items() if value is not None}
    for key in ("zip", "union", "exclude"):
        if key in over:
            base[key] = copy.deepcopy(over[key])
    return base


def default_parser(text: str) -> Any:
    """Parse one override by Hydra's grammar (``glob`` needs the parser of a configuration loader instead)."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(text)


def expand(
    form: Mapping[str, Any],
    command: Mapping[str, list[str]],
    parse: Parse = default_parser,
    most: int = MOST_POINTS,
) -> list[Combination]:
    """Return the points of a form in the order they were written, each once.

    Args:
        form: what :func:`choose_form` returned.
        command: the command line, key -> overrides (several = a sweep). It wins over the form wherever they meet:
            a value that the form has somewhere chooses those points (``task=rte`` keeps what ``zip`` pairs with it),
            another value replaces the form's.
        parse: reads one override.
        most: points that are allowed.

    Raises:
        ValueError: unknown keys, lists of unequal length in a ``zip``, values that cannot be read, too many points.
    """
    points = _combinations(form, "hydra.sweeper", parse, most)
    for key, wanted in command.items():
        _allowed(len(points) * len(wanted), most)
        points = [point for text in wanted for point in _set(points, key, text)]
    seen: set[tuple[str, ...]] = set()
    out = []
    for point in points:
        own = {key: text for key, text in point.assignment.items() if key not in command}
        assignment = {**{key: point.assignment[key] for key in command}, **own}
        texts = tuple(sorted(assignment.values()))
        if texts not in seen:
            seen.add(texts)
            out.append(Combination(assignment, point.exclusions))
    return out


def _allowed(count: int, most: int) -> None:
    """Refuse a grid before it is made: what has no end fills the memory."""
    if count > most:
        raise ValueError(
            f"the grid would have {count:,} points, exclusions not counted: {most:,} are allowed; choose fewer values, "
            f"or set hydra.sweeper.most_points={count} if you mean it."
        )


def _set(points: list[Combination], key: str, text: str) -> list[Combination]:
    """Choose the points that have a value already, with all that was written beside it; else give it to every point."""
    if any(point.assignment.get(key) == text for point in points):
        points = [point for point in points if point.assignment.get(key) in (text, None)]
    return [Combination({**point.assignment, key: text}, point.exclusions) for point in points]


def values(key: str, spec: Any, parse: Parse = default_parser, most: int = MOST_POINTS) -> list[str]:
    """Return the overrides that one entry stands for: ``values("seed", "1,2") == ["seed=1", "seed=2"]``.

    A text is read as on the command line (``a,b``, ``range(1,4)``, ``glob(*)``); a list is a list of values, whatever
    they hold; anything else is one value.

    Raises:
        ValueError: the text cannot be read, or is a continuous interval.
    """
    from hydra.errors import HydraException

    if isinstance(spec, str):
        try:
            override = parse(f"{key}={spec}")
        except HydraException as error:
            raise ValueError(f"{key}: {spec!r} cannot be read: {str(error).splitlines()[0]}") from error
        return override_values(override, most)
    if isinstance(spec, Sequence):
        if not spec:
            raise ValueError(f"{key}: an empty list; give at least one value or leave the key out.")
        items = [values(key, item, parse, most) if isinstance(item, str) else [one(key, item)] for item in spec]
        return [text for item in items for text in item]
    return [one(key, spec)]


def override_values(override: Any, most: int = MOST_POINTS) -> list[str]:
    """Return the single overrides a parsed one stands for, with their keys; globs must have been resolved by Hydra.

    Args:
        override: as Hydra parses it.
        most: values that are allowed.

    Raises:
        ValueError: a continuous interval, which only the Optuna sweeper understands; a range of too many values.
    """
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [override.input_line or key]
    if not override.is_discrete_sweep():
        raise ValueError(f"{override.input_line}: an interval has no list of values; use hydra/sweeper=optuna for it.")
    if override.is_range_sweep():
        _countable(override, most)
    texts = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if not texts:
        raise ValueError(f"{override.input_line}: there is no such value; give at least one, or leave the key out.")
    return texts


def _countable(override: Any, most: int) -> None:
    """Refuse a range without end, before its values are made."""
    try:
        is_long = next(islice(override.value().range(), most, None), None) is not None
    except (ValueError, ArithmeticError) as error:  # a step of 0, an end that is no number
        raise ValueError(f"{override.input_line}: give finite ends, and a step that is not 0.") from error
    if is_long:
        raise ValueError(f"{override.input_line}: more than {most:,} values: raise its step, or bring its ends closer.")


def one(key: str, value: Any) -> str:
    """Return the override that sets ``key`` to one Python value, lists and dictionaries included."""
    return f"{key}={_text(value)}"


def bare(key: str) -> str:
    """Return a key without the prefixes that add or delete: ``+a.b`` and ``a.b`` are the same place."""
    return key.lstrip("+~")


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return value if value.replace("_", "").replace("-", "").replace(".", "").isalnum() else f"'{quoted}'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_text(k)}:{_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(_text(item) for item in value) + "]"
    return str(value)


def _check_keys(form: Any, known: Iterable[str], where: str) -> None:
    if not isinstance(form, Mapping):
        raise ValueError(f"{where} is {form!r}: a mapping with the keys {', '.join(known)} is needed.")
    for key in form:
        if key not in known:
            raise ValueError(f"{where}.{key} is unknown.{near(key, known)} Known keys: {', '.join(known)}.")


def _combinations(form: Mapping[str, Any], where: str, parse: Parse, most: int) -> list[Combination]:
    _check_keys(form, FORM[:-1], where)
    axes: list[list[Assignment]] = [[{bare(k): one(k, v)}] for k, v in (form.get("set") or {}).items()]
    taken = {key for axis in axes for key in axis[0]}
    for pairs in form.get("zip") or []:
        axes.append(_zip(pairs, f"{where}.zip", parse, most))
    for key, spec in (form.get("params") or {}).items():
        if spec is None:
            continue  # taken out by a scale
        axes.append([{bare(key): text} for text in values(key, spec, parse, most)])
    for axis in axes[len(taken) :]:
        for key in axis[0]:
            if key in taken:
                raise ValueError(f"{where}: {key} is set in two places (params, zip, set); keep one of them.")
            taken.add(key)
    exclusions = [exclusion(item, f"{where}.exclude") for item in form.get("exclude") or []]
    _allowed(prod(len(axis) for axis in axes), most)
    own = [Combination(choice, exclusions) for choice in _product(axes)]
    parts = form.get("union") or []
    if not parts:
        return own
    inner: list[Combination] = []
    for n, part in enumerate(parts):
        inner += _combinations(part, f"{where}.union[{n}]", parse, most)
        _allowed(len(own) * len(inner), most)
    return [Combination({**o.assignment, **i.assignment}, exclusions + i.exclusions) for i in inner for o in own]


def _zip(pairs: Any, where: str, parse: Parse, most: int) -> list[Assignment]:
    if not isinstance(pairs, Mapping) or not pairs:
        example = "{task: [a, b], seed: [1, 2]}"
        raise ValueError(f"{where} holds {pairs!r}: give mappings of equally long lists, such as {example}.")
    lists = {key: values(key, spec, parse, most) for key, spec in pairs.items()}
    lengths = {key: len(texts) for key, texts in lists.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{key} has {n}" for key, n in lengths.items())
        raise ValueError(
            f"{where} pairs lists of unequal length ({said}): make them equally long, or use params for a product."
        )
    rows = zip(*lists.values(), strict=True)
    return [{bare(key): text for key, text in zip(lists, row, strict=True)} for row in rows]


def exclusion(item: Any, where: str) -> Exclusion:
    """Read one entry of ``exclude``, which stands at ``where``."""
    if not isinstance(item, Mapping) or not item.get("where") or not item.get("reason"):
        raise ValueError(f"{where} holds {item!r}: give {{where: {{key: value}}, reason: why}}.")
    return Exclusion(dict(item["where"]), str(item["reason"]))


def _product(axes: list[list[Assignment]]) -> list[Assignment]:
    return [{key: text for part in row for key, text in part.items()} for row in product(*axes)]
