"""The search space of ``hydra/sweeper=optuna``: what is varied, within what, and when.

An entry of ``hydra.sweeper.space`` is one of::

    recipe.learning_rate: {low: 1e-5, high: 1e-3, log: true}      a float; the ends may be chosen too
    recipe.epochs: {type: int, low: 1, high: 4, step: 1}          a whole number
    init: [first, spread, last]                                   one of a list; groups and values alike
    objective.prediction.kd.alpha: interval(0.1, 0.9)             or as on the command line
    mapping: {choices: [skip, last], when: {objective: pkd}}      only where this holds; values may hold *
    pkd_mapping: {key: mapping, choices: [...], when: {...}}      a second entry for a key has a name of its own
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kdexp.common.problems import near
from kdexp.sweep.grammar import Parse, bare, one, override_values

SETTINGS = ("key", "type", "low", "high", "step", "log", "choices", "when")
TYPES = ("float", "int", "categorical")
Lookup = Callable[[str], Any]  # a group or key -> what the configuration has, KeyError if it has no such thing


@dataclass(frozen=True)
class Dimension:
    """One thing that is varied.

    Attributes:
        name: its name in Optuna; the key unless the entry says otherwise.
        key: the group or value of the configuration.
        kind: ``float``, ``int`` or ``categorical``.
        low, high, step, log: of a number; ``step`` None = any value.
        choices: of a categorical one.
        when: it exists only in trials where these keys have these values.
    """

    name: str
    key: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    when: Mapping[str, Any] = field(default_factory=dict)

    def suggest(self, trial: Any) -> Any:
        """Ask a trial (``optuna.Trial``) for a value."""
        if self.kind == "categorical":
            return trial.suggest_categorical(self.name, list(self.choices))
        if self.kind == "int":
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def distribution(self) -> Any:
        """Return Optuna's form of it."""
        from optuna import distributions

        if self.kind == "categorical":
            return distributions.CategoricalDistribution(list(self.choices))
        if self.kind == "int":
            return distributions.IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return distributions.FloatDistribution(self.low, self.high, self.log, self.step)

    def values(self) -> list[Any]:
        """List all values.

        Raises:
            ValueError: a float without a step has no end of them.
        """
        if self.kind == "categorical":
            return list(self.choices)
        if self.log or (self.kind == "float" and self.step is None):
            raise ValueError(
                f"hydra.sweeper.space.{self.name}: sampler=grid needs a list of values or a step, not an interval."
            )
        step = self.step or 1
        count = int((self.high - self.low) / step + 1e-9) + 1
        return [int(self.low + n * step) if self.kind == "int" else self.low + n * step for n in range(count)]

    def described(self) -> str:
        """Return the dimension for people."""
        if self.kind == "categorical":
            text = " | ".join(str(choice) for choice in self.choices)
        else:
            step = f" in steps of {self.step:g}" if self.step else ""
            text = f"{self.low:g} .. {self.high:g}{step}{' (log)' if self.log else ''}"
        return text + (f"   when {', '.join(f'{k}={v}' for k, v in self.when.items())}" if self.when else "")


def read(
    form: Mapping[str, Any], command: Mapping[str, list[str]], intervals: Mapping[str, Any], parse: Parse
) -> list[Dimension]:
    """Return the dimensions of a space; what a condition looks at comes first.

    Args:
        form: ``hydra.sweeper.space``.
        command: discrete values of the command line, key -> overrides; one fixes a key, several replace its entry.
        intervals: continuous sweeps of the command line, key -> Hydra's override.
        parse: reads one override.

    Raises:
        ValueError: an entry cannot be read, or conditions go round in circles.
    """
    found = {}
    for name, spec in form.items():
        if spec is None:
            continue  # taken out by a scale
        dimension = _dimension(str(name), spec, parse)
        if dimension.key not in command and dimension.key not in intervals:
            found[dimension.name] = dimension
    for key, texts in command.items():
        if len(texts) > 1:
            found[key] = Dimension(key, key, "categorical", choices=tuple(_scalar(t.partition("=")[2]) for t in texts))
    for key, override in intervals.items():
        found[key] = _interval(key, key, override, {})
    for dimension in found.values():
        if dimension.key in ("seed", "study", "scale"):
            raise ValueError(
                f"hydra.sweeper.space.{dimension.name}: {dimension.key} is not searched; for several seeds a trial "
                "give hydra.sweeper.seeds=[1,2,3]."
            )
    return _ordered(list(found.values()))


def choose(trial: Any, space: list[Dimension], lookup: Lookup) -> dict[str, Any]:
    """Ask a trial for a value of every dimension that exists in it; returns key -> value."""
    values: dict[str, Any] = {}
    for dimension in space:
        if active(dimension, values, lookup):
            values[dimension.key] = dimension.suggest(trial)
    return values


def combinations(space: list[Dimension], lookup: Lookup) -> list[dict[str, Any]]:
    """List all trials of a space of finite dimensions, by the dimensions' names.

    Raises:
        ValueError: a dimension has no end of values.
    """
    rows: list[tuple[dict[str, Any], dict[str, Any]]] = [({}, {})]
    for dimension in space:
        grown = []
        for names, keys in rows:
            if not active(dimension, keys, lookup):
                grown.append((names, keys))
                continue
            for value in dimension.values():
                grown.append(({**names, dimension.name: value}, {**keys, dimension.key: value}))
        rows = grown
    return [names for names, _ in rows]


def overrides(values: Mapping[str, Any]) -> dict[str, str]:
    """Return key -> override of chosen values."""
    return {key: f"{key}={_written(value)}" for key, value in values.items()}


def _written(value: Any) -> str:
    if isinstance(value, float):
        return repr(value)
    written = isinstance(value, str) and value[:1] in ("[", "{", "'", '"')  # Hydra's grammar already
    return str(value) if written else one("x", value)[2:]


def active(dimension: Dimension, values: Mapping[str, Any], lookup: Lookup) -> bool:
    """Tell whether a dimension exists where ``values`` have been chosen so far."""
    for key, wanted in dimension.when.items():
        have = values[key] if key in values else lookup(key)
        options = wanted if isinstance(wanted, list) else [wanted]
        if not any(have == option or fnmatch.fnmatchcase(str(have), str(option)) for option in options):
            return False
    return True


def examples(space: list[Dimension]) -> list[dict[str, Any]]:
    """Return settings that between them name every choice once, each with what its conditions ask for."""
    first = {d.key: (d.choices[0] if d.kind == "categorical" else d.low) for d in reversed(space)}
    out = []
    for dimension in space:
        base = _conditions(dimension, space, first)
        kept = dimension.choices if dimension.kind == "categorical" else (dimension.low,)
        out += [{**base, dimension.key: int(v) if dimension.kind == "int" else v} for v in kept]
    return out


def _conditions(dimension: Dimension, space: list[Dimension], first: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, wanted in dimension.when.items():
        options = [str(o) for o in (wanted if isinstance(wanted, list) else [wanted])]
        parent = next((d for d in space if d.key == key), None)
        if parent is None:
            continue
        fits = [c for c in parent.choices if any(fnmatch.fnmatchcase(str(c), o) for o in options)]
        out.update(_conditions(parent, space, first))
        out[key] = fits[0] if fits else first[key]
    return out


def _dimension(name: str, spec: Any, parse: Parse) -> Dimension:
    where = f"hydra.sweeper.space.{name}"
    if isinstance(spec, str):
        override = parse(f"{bare(name)}={spec}")
        if override.is_sweep_override() and not override.is_discrete_sweep():
            return _interval(name, bare(name), override, {})
        texts = override_values(override)
        return Dimension(name, bare(name), "categorical", choices=tuple(_scalar(t.partition("=")[2]) for t in texts))
    if isinstance(spec, list):
        spec = {"choices": spec}
    if not isinstance(spec, Mapping):
        raise ValueError(f"{where}={spec!r}: give a list of choices, or {{low: ..., high: ...}}.")
    for key in spec:
        if key not in SETTINGS:
            raise ValueError(f"{where}.{key} is unknown.{near(key, SETTINGS)} Known keys: {', '.join(SETTINGS)}.")
    key, when = str(spec.get("key", bare(name))), dict(spec.get("when") or {})
    kind = spec.get("type") or ("categorical" if "choices" in spec else "float")
    if kind not in TYPES:
        raise ValueError(f"{where}.type={kind}: choose one of {', '.join(TYPES)}.")
    if kind == "categorical":
        choices = tuple(
            c if isinstance(c, str | int | float | bool | None) else one("x", c)[2:] for c in spec.get("choices") or ()
        )
        if not choices or len(set(map(repr, choices))) != len(choices):
            raise ValueError(f"{where}.choices={list(choices)}: at least one value, each once.")
        return Dimension(name, key, kind, choices=choices, when=when)
    return _number(where, Dimension(name, key, kind, when=when), spec)


def _number(where: str, made: Dimension, spec: Mapping[str, Any]) -> Dimension:
    try:
        low, high = float(spec["low"]), float(spec["high"])
        step = None if spec.get("step") is None else float(spec["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: {made.kind} needs numbers low and high (got {dict(spec)}).") from error
    log = bool(spec.get("log", False))
    if low > high or (step is not None and step <= 0):
        raise ValueError(f"{where}: low={low:g}, high={high:g}, step={step}: low must not be above high, step above 0.")
    if log and (low <= 0 or step is not None):
        raise ValueError(f"{where}: log=true needs low above 0 (it is {low:g}) and no step (it is {step}).")
    if made.kind == "int" and (low % 1 or high % 1 or (step or 0) % 1):
        raise ValueError(f"{where}: low={low:g}, high={high:g}, step={step}: type=int needs whole numbers.")
    return Dimension(made.name, made.key, made.kind, low, high, step, log, when=made.when)


def _interval(name: str, key: str, override: Any, when: Mapping[str, Any]) -> Dimension:
    """Read Hydra's ``interval(a,b)``, also as ``int(interval(1,5))`` and ``tag(log,interval(1e-5,1e-3))``."""
    sweep = override.value()
    kind = (
        "int" if isinstance(sweep.start, int) and isinstance(sweep.end, int) and "float" not in sweep.tags else "float"
    )
    spec = {"low": sweep.start, "high": sweep.end, "log": "log" in sweep.tags}
    return _number(override.input_line, Dimension(name, key, kind, when=when), spec)


def _scalar(text: str) -> Any:
    """Return the number or truth value that a text stands for, or the text."""
    simple = {"true": True, "false": False, "null": None}
    if text in simple:
        return simple[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _ordered(space: list[Dimension]) -> list[Dimension]:
    """Put what conditions look at before what has them."""
    keys = {d.key for d in space}
    done: list[Dimension] = []
    left = list(space)
    while left:
        have = {d.key for d in done}
        free = [d for d in left if all(key in have or key not in keys for key in d.when)]
        if not free:
            raise ValueError(f"hydra.sweeper.space: the conditions of {', '.join(d.name for d in left)} go in circles.")
        done += free
        left = [d for d in left if d not in free]
    return done
