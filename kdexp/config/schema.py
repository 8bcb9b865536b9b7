"""The types of a configuration. Each group is checked value by value when it is made, and kept as an object.

``Group`` objects are frozen: what a run works with is what was checked. Groups whose keys belong to a class
(``init``, ``task``, ``mapping``, each term of an objective) stay dictionaries and are checked against that class by
:mod:`kdexp.check`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from kdexp.common.problems import ConfigError, near

Count = Annotated[int, Field(gt=0, le=10**9)]
"""A whole number from 1 on."""
Depth = Annotated[int, Field(gt=0, le=1000)]
"""A number of layers, or of one layer."""
Epochs = Annotated[int, Field(gt=0, le=100_000)]
"""A number of epochs."""
Pool = Annotated[int, Field(ge=2, le=10**6)]
"""A number of batches."""
Share = Annotated[float, Field(ge=0, lt=1)]
"""At least 0 and below 1."""
Part = Annotated[float, Field(ge=0, le=1)]
"""From 0 to 1."""
Amount = Annotated[float, Field(gt=0, le=1e9)]
"""Above 0."""
NotNegative = Annotated[float, Field(ge=0, le=1e9)]
Weight = NotNegative
"""What a term of a loss is multiplied by; 0 takes it out."""
Temperature = Annotated[float, Field(ge=1e-3, le=1000)]
"""What logits are divided by: beyond these bounds a softmax is a step, or flat."""
Rate = Annotated[float, Field(ge=1e-12, le=10)]
"""A learning rate."""
Seed = Annotated[int, Field(ge=0, lt=2**40)]
"""What random numbers are drawn from."""
Length = Annotated[int, Field(ge=8, le=10**6)]
"""Tokens of an input: the special ones, and a few words."""
Text = Annotated[str, Field(min_length=1)]
"""A text that is not empty."""
INNER = re.compile(r"(function-|constrained-|nullable|(int|float|str|bool)$|(list|dict|tuple)\[)")
"""Parts of the path of an error of pydantic that name its own types: which member of a union was tried."""
Node = dict[str, Any]
"""A group whose keys belong to the class that its ``_target_`` names."""


class Group(BaseModel):
    """A group of settings: unknown keys, wrong types, values out of bounds, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


LATER = {"optimiser", "momentum", "nesterov", "milestones", "milestone_factor"}
"""Keys that recipes got after results were made with them: at their defaults they are in no identity and no key."""


class Recipe(Group):
    """Groups ``recipe`` and ``teacher.recipe``: how weights are optimised."""

    epochs: Epochs = 3
    steps: Count | None = None
    batch_size: Count = 32
    accumulation: Count = 1
    learning_rate: Rate = 5e-5
    warmup: NotNegative = 0.1
    schedule: Literal["linear", "constant", "milestones"] = "linear"
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = []
    milestone_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    layout_epochs: Count | None = None
    optimiser: Literal["adamw", "sgd"] = "adamw"
    momentum: Share = 0.0
    nesterov: bool = False
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = Field(default=[0.9, 0.999])
    eps: Annotated[float, Field(ge=1e-16, le=1)] = 1e-6
    bias_correction: bool = True
    weight_decay: Annotated[float, Field(ge=0, le=100)] = 0.01
    decay: Literal["matrices", "all"] = "matrices"
    clip: Annotated[float, Field(ge=1e-6, le=1e6)] | None = 1.0
    clip_by: Literal["global", "tensor"] = "global"
    dropout: Share | None = None
    max_length: Length = 128
    eval_every: Count | None = None
    patience: Count | None = None
    keep: Literal["best", "last"] = "best"
    bucket: bool | Pool = True
    shuffle: bool = True
    examples: Count | None = None
    dropout_epochs: Epochs | None = None

    @model_serializer(mode="wrap")
    def _without_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later keys that have no effect, so that a recipe is what it was before they were there."""
        fields = type(self).model_fields
        given: dict[str, Any] = handler(self)
        return {key: value for key, value in given.items() if key not in LATER or value != fields[key].default}

    @model_validator(mode="after")
    def _optimiser(self) -> Recipe:
        """Refuse settings of the other optimiser, or of another schedule."""
        idle = {"adamw": ("momentum", "nesterov"), "sgd": ("betas", "eps", "bias_correction")}[self.optimiser]
        changed = [key for key in idle if getattr(self, key) != type(self).model_fields[key].default]
        if changed:
            said = " and ".join(f"{key}={getattr(self, key)}" for key in changed)
            raise ValueError(f"{said} with optimiser={self.optimiser}: this has no effect; leave it out")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=true with momentum=0: there is no momentum to look ahead with; use momentum=0.9")
        if (self.schedule == "milestones") != bool(self.milestones):
            raise ValueError(
                f"milestones={self.milestones} with schedule={self.schedule}: name the shares of all updates after "
                "which the learning rate is lowered, such as milestones=[0.5,0.75], with schedule=milestones; or none"
            )
        if sorted(set(self.milestones)) != self.milestones:
            raise ValueError(f"milestones={self.milestones}: give them in increasing order, each once")
        return self

    @model_validator(mode="after")
    def _layout(self) -> Recipe:
        """Refuse a schedule that is laid out for less than what is trained."""
        if self.layout_epochs is not None and (self.steps is not None or self.layout_epochs < self.epochs):
            length = f"epochs={self.epochs}" if self.steps is None else f"steps={self.steps}"
            raise ValueError(
                f"layout_epochs={self.layout_epochs} with {length}: the schedule is laid out for at least as many "
                "epochs as are trained; raise it, or set it to null (and count epochs, not steps)"
            )
        return self


class Teacher(Group):
    """Group ``teacher``; null sizes are read from the folder's config.json (:mod:`kdexp.config.resolve`).

    ``commit`` is what ``revision`` stands for on the hub; :mod:`kdexp.check.probes` fills it in. ``pretrain`` has the
    groups of a stage on raw text that makes the weights (:mod:`kdexp.methods.pretraining`); null = it has some.

    Class attributes:
        who: whose model it is; the group of its sizes.
        place: the group that says where it is.
    """

    who: ClassVar[str] = "teacher"
    place: ClassVar[str] = "teacher"

    name: Text
    source: Text
    revision: Text | None = None
    commit: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="64 hex digits")
    family: Text | None = None
    num_layers: Depth | None = None
    hidden_size: Count | None = None
    num_heads: Count | None = None
    intermediate_size: Count | None = None
    vocab_size: Count | None = None
    attention: bool | None = None
    finetune: bool = True
    seed: Seed = 1
    floor_margin: Annotated[float, Field(ge=-1, le=1)] = 0.02
    evaluation_mode: bool = True
    recipe: Recipe = Recipe()
    pretrain: Node | None = None

    @model_serializer(mode="wrap")
    def _without_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a key that came later and has no effect, so that a teacher is what it was before it was there."""
        given: dict[str, Any] = handler(self)
        return {key: value for key, value in given.items() if key != "pretrain" or value is not None}


class Own(Teacher):
    """The checkpoint that a student is, where it brings one of its own (``init=own``): read and loaded as a teacher's.

    Where it is stands in the group ``init``, its sizes in the group ``student``.
    """

    who: ClassVar[str] = "student"
    place: ClassVar[str] = "init"


class Student(Group):
    """Group ``student``; null sizes have been filled with the teacher's, or those of a checkpoint of its own."""

    name: Text
    num_layers: Depth = 3
    hidden_size: Count | None = None
    num_heads: Count | None = None
    intermediate_size: Count | None = None
    vocab_size: Count | None = None
    sharing: Literal["none", "sps1", "sps2"] = "none"


class PhaseEpochs(Group):
    """``objective.epochs``: of each phase; null = recipe.epochs."""

    intermediate: Epochs | None = None
    prediction: Epochs | None = None


class Objective(Group):
    """Group ``objective``; a method with keys of its own adds them in a subclass (:mod:`kdexp.methods.base`)."""

    name: Text
    method: Text = "distill"
    schedule: Literal["single", "two_phase", "joint"]
    start: Literal["raw", "fine_tuned"] = "raw"
    epochs: PhaseEpochs = PhaseEpochs()
    intermediate: dict[str, Node] = {}
    prediction: dict[str, Node] = {}


class Data(Group):
    """Group ``data``."""

    root: Text | None = None
    heldout: Annotated[float, Field(ge=0, le=0.9)] = 0.1


class Runtime(Group):
    """Group ``runtime``: the machinery."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")] = "auto"
    devices: Annotated[int, Field(gt=0, le=4096)] = 1
    shard_teacher: bool = False
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "true", "false"] = "auto"
    compile_mode: Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs"] = "default"
    threads: Annotated[int, Field(gt=0, le=4096)] | None = None
    teacher_cache: Annotated[
        str,
        Field(
            pattern=r"^(auto|off|([1-9]\d*(\.\d+)?|0?\.\d*[1-9]\d*)(KB|MB|GB|TB))$",
            description="auto, off, or a size with its unit, such as 500MB or 4GB",
        ),
    ] = "auto"
    cohort: Annotated[
        str, Field(pattern=r"^(auto|off|[1-9]\d{0,2})$", description="auto, off, or a number of runs from 1 to 999")
    ] = "auto"
    store: Text = "multirun/.store"
    keep_weights: Literal["final", "all", "none"] = "final"
    progress: bool = True
    log_every: Count = 20
    checkpoint_s: NotNegative = 120.0
    lock_timeout_s: Amount = 86400.0
    efficiency: bool = False
    remote: Text | None = None


class Tracking(Group):
    """Group ``tracking``: the view of the runs in MLflow."""

    enabled: bool = True
    uri: Text | None = None
    every_s: Annotated[float, Field(ge=0.01, le=86400)] = 10.0
    timeout_s: Annotated[float, Field(ge=0.01, le=86400)] = 5.0
    system_metrics: bool = True
    artifacts: bool = True


class Config(Group):
    """A whole configuration, of one run."""

    teacher: Teacher
    student: Student
    init: Node
    mapping: Node
    objective: SerializeAsAny[Objective]
    task: Node
    recipe: Recipe
    data: Data
    selection: Literal["heldout", "validation", "last"]
    seed: Seed
    runtime: Runtime
    tracking: Tracking
    study: Text
    scale: Text = "full"
    dry: bool = False
    plan: Literal["run", "show"] = "run"
    budget: Text | None = None


def parse(raw: dict[str, Any], objective: type[Objective] = Objective) -> tuple[Config | None, list[str]]:
    """Make the typed configuration of a resolved dictionary.

    Args:
        raw: what :func:`kdexp.config.resolve.resolve` returned.
        objective: the type of the group ``objective``, which the method decides.

    Returns:
        The configuration, or None and what is wrong with each value, as sentences for people.
    """
    wrong = {key for key in raw if key not in Config.model_fields}
    problems = [f"{key} is unknown.{near(key, Config.model_fields)}" for key in raw if key in wrong]
    values = {key: value for key, value in raw.items() if key not in wrong}
    for key, kind in _groups(objective).items():
        if key not in raw:
            continue
        try:
            values[key] = _group(key, raw[key], kind)
        except ConfigError as error:
            problems += error.problems
            wrong.add(key)
            del values[key]
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        return None, problems + sentences(error, Config, "", wrong)
    return (None, problems) if problems else (config, [])


def _groups(objective: type[Objective]) -> dict[str, type[Group] | None]:
    """Return the groups of a configuration with their types; None = its keys belong to a class."""
    kinds = {key: info.annotation for key, info in Config.model_fields.items()} | {"objective": objective}
    typed = {key: kind for key, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Group)}
    return typed | dict.fromkeys((key for key, kind in kinds.items() if kind == Node))


def _group(key: str, value: Any, kind: type[Group] | None) -> Any:
    """Return a group as its type, or as it is.

    Raises:
        ConfigError: with everything that is wrong in it.
    """
    if not isinstance(value, dict):
        raise ConfigError([f"{key}={value!r} is no group of settings: choose one ({key}=...; --help lists them)."])
    name = value.get("name")
    if name == "???" or (kind is None and not (isinstance(name, str) and name)):
        wrong = " has no value" if name in ("???", None) else f"={name!r} is no name"
        raise ConfigError([f"{key}.name{wrong}: give {key}.name=..., the name in tables."])
    if kind is None:
        return value
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ConfigError(sentences(error, kind, key)) from error


def mended(raw: dict[str, Any], objective: type[Objective] = Objective) -> Config | None:
    """Return the configuration with every wrong value left out or replaced by an allowed one; None if that fails too.

    For one purpose: to look for further problems, so that a person hears of all of them at once.
    """
    tries = (_mended(raw, objective, number) for number in (1, 0.5))  # one of them is within any bounds there are
    return next((config for config in tries if config is not None), None)


def _mended(raw: dict[str, Any], objective: type[Objective], number: float) -> Config | None:
    plain = copy.deepcopy({key: value for key, value in raw.items() if key in Config.model_fields})
    for key, kind in _groups(objective).items():
        if kind is None or not isinstance(plain.get(key), dict):
            continue
        try:
            kind.model_validate(plain[key])
        except ValidationError as error:
            for item in error.errors():
                _mend(plain[key], item, number)
    return parse(plain, objective)[0]


def _mend(group: dict[str, Any], item: Any, number: float) -> None:
    if not item["loc"]:  # a rule of the whole group
        group.clear()
        return
    *path, last = [part for part in item["loc"] if not INNER.match(str(part))]
    for part in path:
        inner = group.get(part)
        if not isinstance(inner, dict):
            group.pop(part, None)
            return
        group = inner
    if item["type"] == "literal_error":
        group[last] = str(item["ctx"]["expected"]).split("'")[1]
    elif item["type"] in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        group[last] = number
    else:
        group.pop(last, None)


def sentences(error: ValidationError, group: type[BaseModel], prefix: str, silent: Collection[str] = ()) -> list[str]:
    """Say what pydantic found: each value, the rule, and the closest known name.

    Args:
        error: what it raised.
        group: the type that was wanted.
        prefix: the key that the value stands at.
        silent: keys below it that are left out.
    """
    problems: dict[str, str] = {}
    for item in error.errors():
        path = [str(part) for part in item["loc"] if not INNER.match(str(part))]
        name = ".".join([prefix, *path] if prefix else path)
        if not path or path[0] not in silent:
            problems.setdefault(name, _sentence(item, name, group, path))
    return list(problems.values())


def _sentence(item: Any, name: str, group: type[BaseModel], path: list[str]) -> str:
    value, kind, context = item["input"], item["type"], item.get("ctx") or {}
    if kind == "value_error":  # a rule of a whole group, which begins with its keys
        return f"{name}.{context['error']}."
    if value == "???" or kind == "missing":
        return f"{name} has no value: give {name}=..."
    if kind == "extra_forbidden":
        known = list(_owner(group, path[:-1]).model_fields)
        return f"{name} is unknown.{near(path[-1], known)} Known keys: {', '.join(known)}."
    if kind == "literal_error":
        known = [word.strip("'") for word in str(context["expected"]).replace(" or ", ", ").split(", ")]
        return f"{name}={value} is unknown; choose one of: {', '.join(known)}.{near(value, known)}"
    if kind == "string_pattern_mismatch":
        field = _owner(group, path[:-1]).model_fields.get(path[-1]) if path else None
        return f"{name}={value} is unknown; choose {(field and field.description) or context['pattern']}."
    if kind == "string_too_short":
        return f"{name} is empty: give a text."
    if kind in ("too_short", "too_long"):
        words = {2: "two", 3: "three"}
        need = int(context.get("min_length") or context.get("max_length") or 0)
        if need == 1:
            return f"{name} is empty: give at least one."
        return f"{name}={value}: {words.get(need, need)} numbers are needed."
    if kind == "finite_number":
        return f"{name}={value}: a finite number is needed."
    bounds = {
        "greater_than": "above",
        "greater_than_equal": "at least",
        "less_than": "below",
        "less_than_equal": "at most",
    }
    if kind in bounds:
        return f"{name}={value}: must be {bounds[kind]} {next(iter(context.values())):g}."
    needed = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "string": "a text",
        "list": "a list",
        "sequence": "a list",
        "tuple": "a list",
        "dict": "a group of settings",
        "model": "a group of settings",
    }
    what = next((words for start, words in needed.items() if kind.startswith(start)), kind.replace("_", " "))
    quotes = ", without quotes" if isinstance(value, str) and what != "a text" else ""
    return f"{name}={value!r} has the wrong type: {what} is needed{quotes}."


def _owner(group: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """Return the group that the last part of a dotted path belongs to."""
    for part in path:
        inner = group.model_fields.get(part)
        if inner is None or not isinstance(inner.annotation, type) or not issubclass(inner.annotation, BaseModel):
            break
        group = inner.annotation
    return group
