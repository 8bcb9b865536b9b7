"""The schema of every closed group, checked value by value: unknown keys, wrong types, values out of bounds."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from kdexp.config import SCIENCE


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
    remote: str | None = None


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
POSITIVE = (
    "epochs", "batch_size", "accumulation", "learning_rate", "eps", "max_length", "steps", "examples", "eval_every",
    "patience", "log_every", "threads", "lock_timeout_s",
)  # fmt: skip
KEYS = {*SCIENCE, "runtime", "tracking", "study", "scale", "dry", "plan"}
OBJECTIVE_KEYS = {"name", "schedule", "start", "plan", "epochs", "intermediate", "prediction"}


def near(word: str, known: Any) -> str:
    """Return ' Did you mean X?' for the closest known word, or ''."""
    match = difflib.get_close_matches(str(word), [str(k) for k in known], 1)
    return f" Did you mean {match[0]}?" if match else ""


def problems(config: dict[str, Any]) -> list[str]:
    """List what is wrong with the groups one by one."""
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
    if not isinstance(config.get("seed"), int) or isinstance(config.get("seed"), bool) or config["seed"] < 0:
        found.append(f"seed={config.get('seed')!r}: give a whole number from 0 on.")
    found += [f"{key} is unknown.{near(key, KEYS)}" for key in config if key not in KEYS]
    objective = config.get("objective") or {}
    if objective.get("plan") in (None, "kdexp.methods.distill.plan"):  # other plans have keys of their own
        found += [f"objective.{k} is unknown.{near(k, OBJECTIVE_KEYS)}" for k in objective if k not in OBJECTIVE_KEYS]
    for phase, number in (objective.get("epochs") or {}).items():
        if phase not in ("intermediate", "prediction"):
            found.append(f"objective.epochs.{phase} is unknown: intermediate and prediction are the phases.")
        elif number is not None and (not isinstance(number, int) or number < 1):
            found.append(f"objective.epochs.{phase}={number}: a whole number from 1 on, or null for recipe.epochs.")
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
        elif config[key].get("name") == "???":
            found.append(f"{key}.name has no value: give {key}.name=..., the name in tables.")
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
        if isinstance(value, str) and not str(known[key]).startswith("str"):
            found.append(f"{name}.{key}={value!r} has the wrong type: {known[key]} is needed, without quotes.")
        elif key in POSITIVE and isinstance(value, int | float) and value <= 0:
            found.append(f"{name}.{key}={value}: must be above 0.")
        elif key == "betas" and len(value) != 2:
            found.append(f"{name}.betas={value}: two numbers are needed.")
        elif key in ("warmup", "weight_decay", "dropout") and value is not None and value < 0:
            found.append(f"{name}.{key}={value}: must not be below 0.")
    return tuple(found)
