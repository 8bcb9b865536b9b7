"""Recompute reference values with the functions that training calls: ``python -m kdexp vectors FILE``.

The file's format is ``kdexp-vectors-1``: each vector names a function, its inputs (tensors as a sine rule, literals,
one-hot or lists of those), its parameters, the expected value and an absolute tolerance. A function is a public one of
an objective's, an init's or another module of :data:`HOMES`, found by its name alone; an unknown name fails.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from kdexp.common.arguments import print_json

FORMAT = "kdexp-vectors-1"
HOMES = ("kdexp.heads", "kdexp.objectives", "kdexp.inits", "kdexp.models.shared_layers", "kdexp.cli.reference")
"""Modules, and packages with all their modules, whose public functions a vector may name."""


@cache
def functions() -> dict[str, list[Callable[..., Any]]]:
    """Every public function of :data:`HOMES` by name; a name that stands in two modules has two."""
    known: dict[str, list[Callable[..., Any]]] = {}
    for home in HOMES:
        inner = getattr(import_module(home), "__path__", None)
        for path in [home] if inner is None else [f"{home}.{module.name}" for module in pkgutil.iter_modules(inner)]:
            for name, member in vars(import_module(path)).items():
                if isinstance(member, FunctionType) and member.__module__ == path and not name.startswith("_"):
                    known.setdefault(name, []).append(member)
    return known


def function(name: str) -> Callable[..., Any]:
    """The function of that name.

    Raises:
        ValueError: if there is none, or more than one.
    """
    known = functions().get(name, [])
    if not known:
        raise ValueError(f"unknown function {name}")
    if len(known) > 1:
        places = " and ".join(one.__module__ for one in known)
        raise ValueError(f"{name} is a function of {places}: give one of them another name")
    return known[0]


def tensor(spec: dict[str, Any]) -> Any:
    """Build one input from its description (float64; integer literals give int64).

    Raises:
        ValueError: for an unknown kind.
    """
    import torch

    kind = spec["kind"]
    if kind == "list":
        return [tensor(item) for item in spec["items"]]
    if kind == "literal":
        values = torch.tensor(spec["value"])
        # Straight to float64: by way of float32, 0.8 would become 0.800000012 and lie above a threshold of 0.8.
        return torch.tensor(spec["value"], dtype=torch.float64) if values.is_floating_point() else values
    if kind == "sin":
        size = torch.Size(spec["shape"])
        k = torch.arange(size.numel(), dtype=torch.float64)
        return (spec["scale"] * torch.sin(1 + 0.7 * k + spec["phase"])).reshape(size)
    if kind == "onehot":
        out = torch.zeros(spec["shape"], dtype=torch.float64)
        index = torch.tensor(spec["index"]).reshape(*out.shape[:-1], 1)
        return out.scatter_(-1, index, float(spec["scale"]))
    raise ValueError(f"input kind {kind!r} is not known; the format has sin, literal, onehot, list")


def inputs(spec: Any) -> Any:
    """Build inputs wherever a description stands in nested lists and dicts."""
    if isinstance(spec, dict):
        return tensor(spec) if "kind" in spec else {key: inputs(value) for key, value in spec.items()}
    return [inputs(item) for item in spec] if isinstance(spec, list) else spec


def plain(value: Any) -> Any:
    """Tensors and tuples as nested lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def agree(got: Any, expected: Any, tolerance: float) -> bool:
    """Same nesting, and every number within the absolute tolerance (0 = equal). NaN agrees with nothing."""
    if isinstance(expected, list) or isinstance(got, list):
        same = isinstance(expected, list) and isinstance(got, list) and len(got) == len(expected)
        return same and all(agree(g, e, tolerance) for g, e in zip(got, expected, strict=True))
    if isinstance(expected, bool) or isinstance(got, bool):
        return got is expected
    return got == expected if tolerance == 0 else abs(got - expected) <= tolerance


def check(vector: dict[str, Any]) -> tuple[bool, Any]:
    """Recompute one vector.

    Returns:
        Whether it agrees, and the value (or, as text, what went wrong: an error is a failure, not a stop).
    """
    try:
        recompute = function(str(vector.get("function")))
    except ValueError as error:
        return False, str(error)
    try:
        got = plain(recompute(**inputs(vector["inputs"]), **vector["params"]))
        return agree(got, vector["expected"], vector["tolerance"]), got
    except Exception as error:
        return False, f"{type(error).__name__}: {error}".splitlines()[0]


def short(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list):
        return "[" + ", ".join(short(item) for item in value) + "]"
    return str(value)


def line(id: str | None, passed: bool, expected: Any, got: Any) -> str:
    """A vector on one line, long values cut off unless it failed."""
    texts = [f"{text[:60]}..." if len(text) > 63 else text for text in (short(expected), short(got))]
    if not passed:
        texts[1] = short(got)
    return f"{id}  expected {texts[0]}  got {texts[1]}  {'pass' if passed else 'FAIL'}"


def load(path: Path) -> list[dict[str, Any]]:
    """The vectors of a file.

    Raises:
        ValueError: if it cannot be read, or has another format.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} has the format {found!r}; this command reads {FORMAT!r}")
    return data["vectors"]


def check_file(file: Path, json: bool = False) -> int:
    """Recompute a file's vectors and print a line each, or all of them as JSON.

    Returns:
        0 if all agree, else 1.

    Raises:
        ValueError: the file cannot be used.
    """
    results = []
    for vector in load(file):
        passed, got = check(vector)
        results.append({"id": vector.get("id"), "passed": passed, "expected": vector.get("expected"), "got": got})
        if not json:
            print(line(**results[-1]))
    failed = sum(not result["passed"] for result in results)
    if json:
        print_json({"passed": len(results) - failed, "failed": failed, "vectors": results})
    else:
        print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0
