"""The configuration: a typed schema, defaults that depend on other values, and every problem in one message.

This module is cheap to import (no torch, no transformers): the sweep's parent checks hundreds of points with it.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

SCIENCE = ("teacher", "student", "init", "mapping", "objective", "task", "recipe", "data", "selection", "seed")
"""Groups that decide what a run is; together with runtime.dtype they are its identity."""

FAMILIES_WITH_ATTENTION = {"bert", "roberta", "electra", "distilbert", "modernbert", "xlm-roberta", "camembert"}


class ConfigError(ValueError):
    """What a person must change before anything can run; holds all problems at once."""

    def __init__(self, problems: list[str]):
        self.problems = list(problems)
        super().__init__(f"{len(problems)} problem(s):\n" + "\n".join(f"  - {p}" for p in problems))


@dataclass
class Teacher:
    """Group ``teacher``; null sizes are read from the folder's config.json."""

    name: str = ""
    source: str = ""
    revision: str | None = None
    sha256: str | None = None
    family: str | None = None
    num_layers: int | None = None
    hidden_size: int | None = None
    num_heads: int | None = None
    intermediate_size: int | None = None
    vocab_size: int | None = None
    attention: bool | None = None
    finetune: bool = True
    seed: int = 1
    floor_margin: float = 0.02
    evaluation_mode: bool = True


@dataclass
class Student:
    """Group ``student``; null means as the teacher."""

    name: str = ""
    num_layers: int = 3
    hidden_size: int | None = None
    num_heads: int | None = None
    intermediate_size: int | None = None
    vocab_size: int | None = None
    sharing: str = "none"


@dataclass
class Recipe:
    """Groups ``recipe`` and ``teacher.recipe``: how weights are optimised."""

    epochs: int = 3
    steps: int | None = None
    batch_size: int = 32
    accumulation: int = 1
    learning_rate: float = 5e-5
    warmup: float = 0.1
    schedule: str = "linear"
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-6
    weight_decay: float = 0.01
    clip: float | None = 1.0
    dropout: float | None = None
    max_length: int = 128
    eval_every: int | None = None
    patience: int | None = None
    keep: str = "best"
    bucket: bool = True
    shuffle: bool = True
    examples: int | None = None
    dropout_epochs: int | None = None


@dataclass
class Data:
    """Group ``data``."""

    root: str | None = None
    heldout: float = 0.1


@dataclass
class Runtime:
    """Group ``runtime``: the machinery."""

    device: str = "auto"
    dtype: str = "auto"
    compile: str = "auto"
    threads: int | None = None
    store: str = "multirun/.store"
    keep_weights: str = "final"
    progress: bool = True
    log_every: int = 20
    checkpoint_s: float = 120.0
    lock_timeout_s: float = 86400.0
    efficiency: bool = False


CHOICES = {
    "selection": ("heldout", "validation", "last"),
    "plan": ("run", "show"),
    "student.sharing": ("none", "sps1", "sps2"),
    "recipe.schedule": ("linear", "constant"),
    "recipe.keep": ("best", "last"),
    "teacher.recipe.schedule": ("linear", "constant"),
    "teacher.recipe.keep": ("best", "last"),
    "runtime.dtype": ("auto", "fp32", "bf16"),
    "runtime.compile": ("auto", "true", "false"),
    "runtime.keep_weights": ("final", "all", "none"),
    "objective.schedule": ("single", "two_phase", "joint"),
}
POSITIVE = ("epochs", "batch_size", "accumulation", "learning_rate", "eps", "max_length")


def near(word: str, known: Any) -> str:
    """Return ' Did you mean X?' for the closest known word, or ''."""
    match = difflib.get_close_matches(str(word), [str(k) for k in known], 1)
    return f" Did you mean {match[0]}?" if match else ""


def resolve(cfg: Any) -> dict[str, Any]:
    """Turn a composed configuration into a plain dictionary with all dependent values filled in.

    Values per task are applied to both recipes, a local teacher's sizes are read from its config.json, and the
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
    task = (config.get("task") or {}).get("name", "")
    teacher, student = config.setdefault("teacher", {}), config.setdefault("student", {})
    for recipe in (config.get("recipe"), teacher.get("recipe")):
        if isinstance(recipe, dict):
            recipe.update((recipe.pop("per_task", None) or {}).get(task) or {})
    _read_sizes(teacher)
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


def _read_sizes(teacher: dict[str, Any]) -> None:
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
    out["data"] = {k: v for k, v in config["data"].items() if k not in ("root", "cache")}
    out["dtype"] = config["runtime"]["dtype"]
    return out


# --- checks ---------------------------------------------------------------------------------------------------------


def problems(config: dict[str, Any]) -> list[str]:
    """List everything that is wrong with a resolved configuration, as sentences for people; [] = fine."""
    from kdexp import checks

    found = _schema_problems(config)
    return found if found else checks.cross(config)


def _schema_problems(config: dict[str, Any]) -> list[str]:
    found: list[str] = []
    teacher = dict(config.get("teacher") or {})
    recipe = teacher.pop("recipe", {})
    groups: list[tuple[str, type, dict[str, Any]]] = [
        ("teacher", Teacher, teacher),
        ("teacher.recipe", Recipe, recipe or {}),
        ("student", Student, dict(config.get("student") or {})),
        ("recipe", Recipe, dict(config.get("recipe") or {})),
        ("data", Data, dict(config.get("data") or {})),
        ("runtime", Runtime, dict(config.get("runtime") or {})),
    ]
    for name, schema, values in groups:
        found += _typed(name, schema, values)
    if not isinstance(config.get("seed"), int) or isinstance(config.get("seed"), bool):
        found.append(f"seed={config.get('seed')!r}: give a whole number.")
    for key, known in CHOICES.items():
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value not in known:
            found.append(f"{key}={value} is unknown; choose one of: {', '.join(known)}.{near(str(value), known)}")
    for key in ("init", "objective", "task", "mapping"):
        if not isinstance(config.get(key), dict):
            found.append(
                f"{key}={config.get(key)!r} is empty: choose one ({key}=...; python -m kdexp --help lists them)."
            )
    return found


def _typed(name: str, schema: type, values: dict[str, Any]) -> list[str]:
    """Check one group against its dataclass: unknown keys, missing values, wrong types, values of 0 and below."""
    return list(_typed_once(name, schema, json.dumps(values)))


@lru_cache(maxsize=4096)
def _typed_once(name: str, schema: type, text: str) -> tuple[str, ...]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    found, known = [], {f.name: f.type for f in fields(schema)}
    node = OmegaConf.structured(schema)
    for key, value in json.loads(text).items():
        if key not in known:
            found.append(f"{name}.{key} is unknown.{near(key, known)} Known keys: {', '.join(known)}.")
            continue
        if value == "???":
            found.append(f"{name}.{key} has no value: give {name}.{key}=...")
            continue
        try:
            node[key] = value
        except (OmegaConfBaseException, ValueError):
            found.append(f"{name}.{key}={value!r} has the wrong type: {known[key]} is needed.")
            continue
        if key in POSITIVE and isinstance(value, int | float) and value <= 0:
            found.append(f"{name}.{key}={value}: must be above 0.")
    return tuple(found)
