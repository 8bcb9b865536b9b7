"""The configuration: a typed schema, defaults that depend on other values, and every problem in one message.

This module is cheap to import (no torch, no transformers): the sweep's parent checks hundreds of points with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCIENCE = ("teacher", "student", "init", "mapping", "objective", "task", "recipe", "data", "selection", "seed")
"""Groups that decide what a run is; together with runtime.dtype they are its identity."""

PLACES = {"data": {"root", "cache"}}
"""Keys of those groups that say where something lies, and decide nothing."""

FAMILIES_WITH_ATTENTION = {"bert", "roberta", "electra", "distilbert", "modernbert", "xlm-roberta", "camembert"}


class ConfigError(ValueError):
    """What a person must change before anything can run; holds all problems at once."""

    def __init__(self, problems: list[str]):
        self.problems = list(problems)
        super().__init__(f"{len(problems)} problem(s):\n" + "\n".join(f"  - {p}" for p in problems))


def resolve(cfg: Any) -> dict[str, Any]:
    """Turn a composed configuration into a plain dictionary with all dependent values filled in.

    A local teacher's sizes are read from its config.json, and the
    student's nulls become the teacher's values. What cannot be filled in stays as it is: :func:`problems` names it.

    Args:
        cfg: a DictConfig without its ``hydra`` node, or a plain dictionary.
    """
    if isinstance(cfg, dict):
        config = json.loads(json.dumps(cfg))
    else:
        from omegaconf import OmegaConf

        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    assert isinstance(config, dict)
    config.pop("hydra", None)
    config.pop("debug", None)
    teacher, student = config.setdefault("teacher", {}), config.setdefault("student", {})
    for recipe in (config.get("recipe"), teacher.get("recipe")):
        if isinstance(recipe, dict):
            recipe.pop("per_task", None)  # looked up by the resolver kdexp.per_task
    read_sizes(teacher)
    for key in ("hidden_size", "num_heads", "intermediate_size", "vocab_size"):
        if student.get(key) is None:
            student[key] = teacher.get(key)
    runtime = config.get("runtime") or {}
    if "compile" in runtime:
        runtime["compile"] = str(runtime["compile"]).lower()
    return config


def source_folder(source: str) -> Path | None:
    """Return the local folder that a teacher's ``source`` names, or None for the hub.

    A package is located without importing it. The folder need not exist: :func:`problems` says so.
    """
    kind, _, rest = source.partition(":")
    if kind == "path":
        return Path(rest).expanduser()
    if kind == "package":
        import importlib.util

        package, _, below = rest.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            return Path(f"<package {package} is not installed>")
        return Path(next(iter(spec.submodule_search_locations))) / below
    return None


def read_sizes(teacher: dict[str, Any]) -> None:
    """Fill a teacher's null sizes from the config.json of its folder."""
    folder = source_folder(str(teacher.get("source") or "")) if teacher.get("source") not in (None, "???") else None
    if folder is None or not (folder / "config.json").is_file():
        return
    found = json.loads((folder / "config.json").read_text())
    names = {
        "family": ("model_type",),
        "num_layers": ("num_hidden_layers", "n_layers"),
        "hidden_size": ("hidden_size", "dim"),
        "num_heads": ("num_attention_heads", "n_heads"),
        "intermediate_size": ("intermediate_size", "hidden_dim"),
        "vocab_size": ("vocab_size",),
    }
    for key, aliases in names.items():
        if teacher.get(key) is None:
            teacher[key] = next((found[a] for a in aliases if a in found), None)
    if teacher.get("attention") is None:
        teacher["attention"] = teacher.get("family") in FAMILIES_WITH_ATTENTION


def science(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a resolved configuration that decides what a run is (paths left out)."""
    out = {key: config[key] for key in SCIENCE}
    for group, places in PLACES.items():
        out[group] = {key: value for key, value in config[group].items() if key not in places}
    out["dtype"] = config["runtime"]["dtype"]
    return out


# --- checks ---------------------------------------------------------------------------------------------------------


def problems(config: dict[str, Any]) -> list[str]:
    """List everything that is wrong with a resolved configuration, as sentences for people; [] = fine."""
    from kdexp.check import combinations
    from kdexp.config import schema

    found = schema.problems(config)
    return found if found else combinations.cross(config)
