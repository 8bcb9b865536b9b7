"""From names in a configuration to classes and functions; only allowed packages are ever imported.

A class is written as ``_target_: kdexp.objectives.kd.KD``, a method or a stage's action as the name of its file
(``ted``, ``ted.filters``). What *identifies* a result is the registered name alone (:func:`registered_name`), so that
a file of kdexp can move without making older results strangers. Packages of a user's own are allowed by the
environment variable KDEXP_TARGETS (comma-separated prefixes), or as installed plugins (:mod:`.contributed`); they are
known by their whole path.
"""

from __future__ import annotations

import importlib
import inspect
import os
from typing import Any, TypeVar

from kdexp.common import contributed

OBJECTS = ("kdexp.objectives.", "kdexp.inits.", "kdexp.tasks.", "kdexp.heads.")
"""Where the classes that a ``_target_`` may name live."""


KINDS: list[type] = []
"""The interfaces that a ``_target_`` may name a subclass of; each adds itself (:func:`kind`)."""

Kind = TypeVar("Kind", bound=type)


def kind(interface: Kind) -> Kind:
    """Make a class one of :data:`KINDS`; a decorator."""
    KINDS.append(interface)
    return interface


def allowed_packages() -> tuple[str, ...]:
    """Return the prefixes that are allowed beside kdexp's own, each ending with a dot: KDEXP_TARGETS, then plugins."""
    words = (word.strip() for word in os.environ.get("KDEXP_TARGETS", "").split(","))
    brought = (plugin.package for plugin in contributed.usable())
    return tuple(word if word.endswith(".") else f"{word}." for word in (*words, *brought) if word)


def load(path: str, allowed: tuple[str, ...], key: str = "_target_") -> Any:
    """Import what a dotted path names.

    Args:
        path: ``package.module.name``.
        allowed: prefixes of kdexp's own that may be named here; :func:`allowed_packages` always may.
        key: where the path was written, for the message.

    Raises:
        ValueError: not allowed, or not there.
    """
    prefixes = allowed if path.startswith(allowed) else allowed + allowed_packages()
    if not path.startswith(prefixes) or not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(
            f"{key}={path} is not allowed; allowed are names below {', '.join(prefixes)} "
            "(add a package of your own with the environment variable KDEXP_TARGETS)"
        )
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{key}={path} cannot be loaded: {error}") from error


def target(spec: dict[str, Any], interface: type | None = None) -> Any:
    """Import the class that a node's ``_target_`` names; its name is judged before anything is imported.

    Args:
        spec: the node.
        interface: what it must be a subclass of; None = any of :data:`KINDS`.

    Raises:
        ValueError: not allowed, not there, no class of that kind, or no ``_target_``.
    """
    path = spec.get("_target_")
    if not isinstance(path, str):
        raise ValueError(f"no _target_ in {sorted(spec)}: name the class, such as kdexp.objectives.kd.KD")
    chosen = load(path, OBJECTS)
    if not inspect.isclass(chosen):
        raise ValueError(f"_target_={path} is no class: name the class, such as kdexp.objectives.kd.KD")
    kinds = tuple(KINDS) if interface is None else (interface,)
    if not issubclass(chosen, kinds) or chosen in KINDS or inspect.isabstract(chosen):
        wanted = " or ".join(f"{one.__module__}.{one.__name__}" for one in kinds)
        raise ValueError(f"_target_={path} is not of this kind: name a class that is made from {wanted}")
    return chosen


RESERVED = ("_target_", "weight", "mapping")


def build(spec: dict[str, Any], reserved: tuple[str, ...] = ("_target_",)) -> Any:
    """Make the object that a node with a ``_target_`` describes; its other keys are the arguments."""
    return target(spec)(**{k: v for k, v in spec.items() if k not in reserved})


def registered_name(path: str) -> str:
    """Return what a class is known by: its own name if it is kdexp's (one a kind), else its whole path."""
    return path.rpartition(".")[2] if path.startswith("kdexp.") else path


def by_name(value: Any) -> Any:
    """Return nested settings with each ``_target_`` replaced by the registered name; what identities are made of."""
    if isinstance(value, dict):
        named = {k: by_name(v) if isinstance(v, dict | list | tuple) else v for k, v in value.items()}
        if isinstance(value.get("_target_"), str):
            named["_target_"] = registered_name(value["_target_"])
        return named
    return [by_name(item) for item in value] if isinstance(value, list | tuple) else value
