"""From a YAML node with a ``_target_`` to an object; only allowed packages are ever imported."""

from __future__ import annotations

import importlib
import os
from typing import Any

ALLOWED_TARGETS = ("kdexp.objectives.", "kdexp.inits.", "kdexp.tasks.", "kdexp.heads.")


def target(spec: dict[str, Any]) -> Any:
    """Import the class or function that a ``_target_`` names; only allowed packages are ever imported.

    Packages of your own are allowed by the environment variable KDEXP_TARGETS (comma-separated prefixes).

    Raises:
        ValueError: not allowed, not found, or no ``_target_``.
    """
    path = spec.get("_target_")
    if not isinstance(path, str):
        raise ValueError(f"no _target_ in {sorted(spec)}: name the class, such as kdexp.objectives.kd.KD")
    extra = tuple(p.strip() for p in os.environ.get("KDEXP_TARGETS", "").split(",") if p.strip())
    if not path.startswith(ALLOWED_TARGETS + extra):
        raise ValueError(
            f"_target_={path} is not allowed; allowed are names below {', '.join(ALLOWED_TARGETS + extra)} "
            "(add a package of your own with the environment variable KDEXP_TARGETS)"
        )
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"_target_={path} cannot be loaded: {error}") from error


RESERVED = ("_target_", "weight", "mapping")


def build(spec: dict[str, Any], reserved: tuple[str, ...] = ("_target_",)) -> Any:
    """Make the object that a node with a ``_target_`` describes; its other keys are the arguments."""
    return target(spec)(**{k: v for k, v in spec.items() if k not in reserved})
