"""Values of Python as words of the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any

from kdexp.cli.words import as_one_text
from kdexp.common.problems import ConfigError

PLAIN = re.compile(r"[A-Za-z_./][\w./:@+-]*", re.ASCII)
"""Texts that Hydra takes for texts without quotes ..."""
MEANT_OTHERWISE = {"null", "true", "false", "nan", "inf"}
"""... but for these."""


def overrides(settings: Mapping[str, Any], swept: bool = False) -> list[str]:
    """Return ``key=value`` words of nested settings: ``recipe={"epochs": 3}`` is ``recipe.epochs=3``.

    Args:
        settings: of a run.
        swept: a list at the top, where no setting is one, stands for values to try: ``seed=[1, 2]`` is ``seed=1,2``.

    Raises:
        ConfigError: a value that no configuration has.
    """
    words = []
    for key, value in settings.items():
        if swept and isinstance(value, list | tuple | range):
            words.append(f"{key}={','.join(_spelt(key, one) for one in value)}")
        else:
            words += _words(key, value)
    return words


def _words(key: str, value: Any) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [word for inner, one in value.items() for word in _words(f"{key}.{inner}", one)]
    return [f"{key}={_spelt(key, value)}"]


def _spelt(key: str, value: Any) -> str:
    """Return a value in Hydra's grammar."""
    if hasattr(value, "item") and not isinstance(value, Sequence):  # a number of NumPy
        value = value.item()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, PathLike):
        value = fspath(value)
    if isinstance(value, str):
        plain = PLAIN.fullmatch(value) and value.lower() not in MEANT_OTHERWISE
        return value if plain else as_one_text("", value)[1:]
    if isinstance(value, list | tuple | range):
        return f"[{','.join(_spelt(key, one) for one in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_spelt(key, str(k))}:{_spelt(key, one)}" for k, one in value.items()) + "}"
    raise ConfigError(
        [f"{key}={value!r}: a setting is a text, a number, true, false, None, or a list or dict of these."]
    )


def plain(keys: Mapping[str, Any]) -> list[str]:
    """Return ``key=text`` words of a verb, whose values are texts as they are; what is None is left to the verb."""
    return [f"{key}={_text(value)}" for key, value in keys.items() if value is not None]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
