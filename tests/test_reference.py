"""What is recomputed is what trains: golden functions are reached from training code, or stand in ``cli/reference.py``.

Read from the sources alone: who uses which top-level function or class of kdexp, followed from the code that trains and
from the classes that ``conf/`` names.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from kdexp.cli import reference, vectors

ROOT = Path(__file__).resolve().parents[1]
TRAINING = ("kdexp.train.", "kdexp.methods.", "kdexp.run.")
FILES = [ROOT / "tests" / "data" / name for name in ("vectors.json", "more_vectors.json")]
GOLDEN = sorted({vector["function"] for path in FILES for vector in vectors.load(path)})


def modules() -> dict[str, ast.Module]:
    """Every module of kdexp but the command line, by dotted name."""
    paths = [path for path in sorted((ROOT / "kdexp").rglob("*.py")) if "cli" not in path.parts]
    dotted = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in dotted.items()}


def names(module: str, tree: ast.Module) -> dict[str, str]:
    """What a name means in a module: its own definitions, and everything it imports at any place, as dotted paths."""
    meaning = {node.name: f"{module}.{node.name}" for node in tree.body if hasattr(node, "name")}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            meaning |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            meaning |= {alias.asname: alias.name for alias in node.names if alias.asname}
    return meaning


def used(node: ast.AST, meaning: dict[str, str]) -> set[str]:
    """Dotted paths that a piece of code speaks of, by a name or as ``module.name``."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in meaning:
            found.add(meaning[part.id])
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id in meaning:
            found.add(f"{meaning[part.value.id]}.{part.attr}")
        elif isinstance(part, ast.Constant) and re.fullmatch(r"kdexp(\.\w+)+", str(part.value)):
            found.add(part.value)  # a class that is built by its name, such as a task's head
    return found


@cache
def reached() -> set[str]:
    """Dotted paths of all that training code uses, directly or by way of others."""
    uses: dict[str, set[str]] = defaultdict(set)
    for module, tree in modules().items():
        meaning = names(module, tree)
        for node in tree.body:
            if not isinstance(node, ast.Import | ast.ImportFrom):
                uses[f"{module}.{getattr(node, 'name', '')}"] |= used(node, meaning)
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "conf").rglob("*.yaml"))
    chosen = {path for text in texts for path in re.findall(r"_target_:\s*(kdexp\.(?!cli\b)[\w.]+)", text)}
    left = [path for path in uses if path.startswith(TRAINING)] + sorted(chosen)
    seen: set[str] = set()
    while left:
        path = left.pop()
        if path not in seen:
            seen.add(path)
            left += uses.get(path, set())
            left.append(f"{path.rpartition('.')[0]}.")  # what the module does when it is imported: its tables
    return seen


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_functions_are_what_training_calls(name: str):
    function = vectors.function(name)
    path = f"{function.__module__}.{name}"
    if function.__module__ == reference.__name__:
        assert path not in reached()
    else:
        assert path in reached(), f"nothing that trains calls {path}: use it, or move it to kdexp/cli/reference.py"


def test_what_nothing_calls_is_not_reached():
    """The search can fail: it finds a helper of an objective, and neither a reference nor an unused name."""
    assert "kdexp.objectives.common.over_layers" in reached()
    assert not {path for path in reached() if path.startswith("kdexp.cli")}
    assert "kdexp.objectives.lgtm.LGTMTeacher" not in reached()  # a class that no choice names


def test_training_knows_no_reference():
    for module, tree in modules().items():
        assert not [n for n in names(module, tree).values() if n.startswith(reference.__name__)], module


def test_a_name_in_two_modules_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"uniform is a function of kdexp.objectives.layer_maps and .*noise: give one"):
        vectors.function("uniform")
    with pytest.raises(ValueError, match="unknown function telepathy"):
        vectors.function("telepathy")


def test_a_literal_keeps_its_digits():
    """0.8 read by way of float32 is 0.800000012, and a confidence of 0.8 would count as above a threshold of 0.8."""
    literal = {"kind": "literal", "value": [0.8, 0.81, 0.3]}
    correct = {"kind": "literal", "value": [1, 1, 1]}
    vector = {
        "function": "ptp_labels",
        "inputs": {"confidence": literal, "correct": correct},
        "params": {"t1": 0.8, "t2": 0.5},
        "expected": [1, 0, 1],
        "tolerance": 0,
    }
    assert vectors.check(vector) == (True, [1, 0, 1])
    assert vectors.tensor(literal).tolist() == literal["value"]
