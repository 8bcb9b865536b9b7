"""Settings of a class or a function, against the signature that takes them: unknown keys, types, bounds.

The annotation of a parameter is the rule: ``alpha: Part = 0.5``, where ``Part`` is a type with bounds such as those of
:mod:`kdexp.config.schema`. Values are read as JSON, which is what YAML and the command line give.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Collection
from functools import cache
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from kdexp.common.problems import near
from kdexp.config.schema import Group, Weight, sentences


def problems(where: str, settings: dict[str, Any], taker: Callable[..., Any], but: Collection[str] = ()) -> list[str]:
    """Return what is wrong with settings, as sentences for people.

    Args:
        where: the key that they stand below.
        settings: by name.
        taker: the class or function that takes them as keyword arguments.
        but: names that belong to somebody else: those of settings are passed over, those of parameters not offered.
    """
    known = {key: reader for key, reader in _readers(taker).items() if key not in but}
    found = []
    for key, value in settings.items():
        name = f"{where}.{key}"
        if key in but:
            continue
        if key not in known:
            found.append(f"{name} is unknown.{near(key, known)} Known keys: {', '.join(known) or 'none'}.")
        elif value == "???":
            found.append(f"{name} has no value: give {name}=...")
        else:
            found += _wrong(name, value, known[key])
    return found


def weight(name: str, value: Any) -> list[str]:
    """Return what is wrong with the weight of a term of a loss."""
    return _wrong(name, value, _WEIGHT)


def _wrong(name: str, value: Any, reader: TypeAdapter[Any] | None) -> list[str]:
    """Return what is wrong with a value where a reader of a type expects it; None takes everything."""
    try:
        if reader is not None:
            reader.validate_json(json.dumps(value))
    except ValidationError as error:
        return sentences(error, Group, name)
    return []


def _reader(annotation: Any) -> TypeAdapter[Any] | None:
    """Return what reads values of a type; None if pydantic does not know it: a class of somebody's own, who checks."""
    try:
        return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))
    except PydanticUserError:
        return None


_WEIGHT = _reader(Weight)


@cache
def _readers(taker: Callable[..., Any]) -> dict[str, TypeAdapter[Any] | None]:
    """Make the readers of all parameters once, for all points of a grid."""
    return {name: _reader(annotation) for name, annotation in types(taker).items()}


@cache
def types(taker: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameters that can be given by name, each with its type; ``Any`` where none can be made out."""
    source: Any = taker if dataclasses.is_dataclass(taker) or not inspect.isclass(taker) else taker.__init__  # type: ignore[misc]
    try:
        hints = get_type_hints(source, include_extras=True)
    except NameError:  # imported for type checkers only
        hints = {}
    parameters = inspect.signature(taker).parameters.values()
    named = (p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return {name: hints.get(name, Any) for name in named}
