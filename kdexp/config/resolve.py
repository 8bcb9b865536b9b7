"""From a composed configuration to plain values: interpolations, and defaults that depend on other values.

Cheap to import (no torch, no transformers): the parent of a grid prepares thousands of points with it.
"""

from __future__ import annotations

import importlib.util
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kdexp.common import network
from kdexp.common.problems import ConfigError

FAMILIES_WITH_ATTENTION = {
    "bert", "roberta", "electra", "distilbert", "modernbert", "xlm-roberta", "camembert", "vit", "gpt2",
}  # fmt: skip
"""Families of transformers whose attention passes through its attention interface."""

SIZES = {
    "family": ("model_type",),
    "num_layers": ("num_hidden_layers", "n_layers", "n_layer"),
    "hidden_size": ("hidden_size", "dim", "n_embd"),
    "num_heads": ("num_attention_heads", "n_heads", "n_head"),
    "intermediate_size": ("intermediate_size", "hidden_dim", "n_inner"),
    "vocab_size": ("vocab_size",),
}
"""Keys of the group ``teacher`` -> their names in a model's config.json, by family."""


def resolve(composed: DictConfig | dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as a plain dictionary with all dependent values filled in.

    A local teacher's sizes are read from its config.json, and the student's nulls become the teacher's values, or those
    of a checkpoint of its own. What cannot be filled in stays as it is; the checks name it.

    Args:
        composed: what Hydra composed, with or without its ``hydra`` node, or a dictionary.
    """
    if isinstance(composed, DictConfig):
        without_hydra = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        config: Any = OmegaConf.to_container(without_hydra, resolve=True, throw_on_missing=False)
    else:
        config = copied(composed)
    assert isinstance(config, dict)
    for word in ("hydra", "debug"):
        config.pop(word, None)
    # What is no group of settings gets none filled in: the checks name it.
    groups = {key: value if isinstance(value, dict) else {} for key, value in config.items()}
    recipes = [groups.get("recipe", {}), *(groups.get(group, {}).get("recipe") for group in ("teacher", "init"))]
    pretrain = groups.get("teacher", {}).get("pretrain")
    recipes.append(pretrain.get("recipe") if isinstance(pretrain, dict) else None)
    for recipe in recipes:
        if isinstance(recipe, dict):
            recipe.pop("per_task", None)  # looked up by the resolver kdexp.per_task
    runtime = groups.get("runtime", {})
    if isinstance(runtime.get("compile"), bool):  # YAML reads true and false
        runtime["compile"] = str(runtime["compile"]).lower()
    for key in {"teacher_cache", "cohort"} & runtime.keys():  # YAML reads off, and numbers
        runtime[key] = "off" if runtime[key] is False else str(runtime[key])
    return fill(config)


def copied(value: Any) -> Any:
    """Copy nested plain values: many times as fast as ``copy.deepcopy``, which a grid of thousands of points feels."""
    if isinstance(value, dict):  # asked here of what is inside, for a call costs more than the question
        return {key: copied(item) if isinstance(item, dict | list) else item for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def fill(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with the sizes that the models' config.json say, where those can be read by now.

    Args:
        config: plain values; a model of the hub can be read once its ``commit`` is known.
    """
    if not all(isinstance(config.get(key), dict) for key in ("teacher", "student")):
        return config  # the checks name what is no group of settings
    teacher, student = dict(config["teacher"]), dict(config["student"])
    teacher |= {key: value for key, value in sizes(teacher).items() if teacher.get(key) is None}
    like, init = teacher, config.get("init")
    if isinstance(init, dict) and placed(init):
        like = sizes(init)
        init = {**init, "family": init.get("family") or like.get("family")}
        if student.get("num_layers") is None:  # of a local folder that is not there anything will do: that is said
            missing = source_folder(str(init["source"])) is not None
            student["num_layers"] = like.get("num_layers") or (teacher.get("num_layers") if missing else None)
    for key in ("hidden_size", "num_heads", "intermediate_size", "vocab_size"):
        if student.get(key) is None:
            student[key] = like.get(key)
    return {**config, "teacher": teacher, "student": student, **({"init": init} if "init" in config else {})}


def placed(init: Any) -> bool:
    """Tell whether an init says *where* weights are (``hub:``, ``path:``, ``package:``), not which of the teacher's."""
    source = init.get("source") if isinstance(init, dict) else None
    return isinstance(source, str) and ":" in source


def source_folder(source: str, commit: str | None = None) -> Path | None:
    """Return the local folder that a teacher's ``source`` names: for the hub, the cache's of that commit, or None.

    A package is located without importing it. The folder need not exist: the checks say so. ``scratch:`` before a
    source takes its architecture and none of its weights.
    """
    kind, _, rest = source.removeprefix("scratch:").partition(":")
    if kind == "hub" and commit is not None:
        return network.folder("model", rest, commit)
    if kind == "path":
        return Path(rest).expanduser()
    if kind == "package":
        package, _, below = rest.partition("/")
        try:  # a name with dots would import what is before them
            inside = package.isidentifier() and ".." not in Path(below).parts
            spec = importlib.util.find_spec(package) if inside else None
        except ValueError:  # the program itself
            spec = None
        if spec is None or not spec.submodule_search_locations:
            return Path(f"<package {package} is not installed>")
        return Path(next(iter(spec.submodule_search_locations))) / below
    return None


def sizes(teacher: dict[str, Any]) -> dict[str, Any]:
    """Return what a model's config.json says of :data:`SIZES`, and ``attention``; without a folder only that."""
    source = teacher.get("source")
    folder = None if source in (None, "???") else source_folder(str(source), teacher.get("commit"))
    said = {} if folder is None else stated(folder)
    if not said:
        family = teacher.get("family")
        return {"attention": None if family is None else str(family) in FAMILIES_WITH_ATTENTION}
    values = {key: next((said[a] for a in aliases if a in said), None) for key, aliases in SIZES.items()}
    if values["intermediate_size"] is None and isinstance(said.get("n_embd"), int):
        values["intermediate_size"] = 4 * said["n_embd"]  # what GPT-2 takes where nothing is said
    family = teacher.get("family") or values["family"]
    return {**values, "attention": str(family) in FAMILIES_WITH_ATTENTION}


def stated(folder: Path) -> dict[str, Any]:
    """Return what a model's config.json says; {} where there is none.

    Raises:
        ConfigError: it cannot be read, or holds no settings.
    """
    path = folder / "config.json"
    return _config_json(path, path.stat().st_mtime_ns) if path.is_file() else {}


@lru_cache(maxsize=64)
def _config_json(path: Path, changed: int) -> dict[str, Any]:
    """Read a small file once for all points of a grid; ``changed`` is its time stamp."""
    try:
        stated = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            [f"{path} cannot be read ({error}): save the model again, or name another folder."]
        ) from error
    if not isinstance(stated, dict):
        raise ConfigError([f"{path} holds no settings (a {type(stated).__name__}): it is not a model's config.json."])
    return stated
