"""The map in docs/architecture.md against the folders, and the walls between the rooms."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `kdexp/([\w/]*)`[^|]*\|([^|]*)\|([^|]*)\|", re.MULTILINE)
OPEN = ("objectives", "inits")
"""Packages of one file a concept: the map names what they share, not each file."""


def modules(folder: Path) -> set[str]:
    """Names of a package's modules and packages, without ``__init__`` and what begins with an underscore."""
    files = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    return {name for name in files if not name.startswith("_")}


def rooms() -> dict[str, set[str]]:
    """Package -> the modules that the map names in its row."""
    return {name.strip("/"): set(re.findall(r"`(\w+)`", names)) for name, names, _ in ROW.findall(MAP)}


def test_every_package_is_on_the_map():
    packages = {path.parent.relative_to(ROOT / "kdexp").as_posix() for path in (ROOT / "kdexp").rglob("__init__.py")}
    packages = {"" if name == "." else name for name in packages}
    assert packages == set(rooms()), "packages and the rows of docs/architecture.md differ"


@pytest.mark.parametrize("package", sorted(rooms()))
def test_every_module_is_on_the_map(package):
    there, named = modules(ROOT / "kdexp" / package), rooms()[package]
    there -= {name.rpartition("/")[2] for name in rooms() if name.rpartition("/")[0] == package and name}
    assert named <= there, f"on the map but not in kdexp/{package}: {sorted(named - there)}"
    if package not in OPEN:
        assert there <= named, f"in kdexp/{package} but not on the map: {sorted(there - named)}"


LAZY = {
    "kdexp/cli/main.py": "the command line answers --help and --version before torch is there",
    "kdexp/cli/callbacks.py": "Hydra imports it for the parent of a grid too",
    "kdexp/cli/verbs.py": "a verb's module is imported when it is asked for",
    "kdexp/cli/verbs/export.py": "the page of all verbs is shown before torch is there",
    "kdexp/cli/verbs/keep.py": "the page of all verbs is shown before torch is there",
    "kdexp/cli/verbs/predict.py": "the page of all verbs is shown before torch is there",
    "kdexp/launch/child.py": "a worker sets its environment before the libraries read it",
    "kdexp/launch/preload.py": "the forkserver's list",
    "kdexp/methods/base.py": "the registry of methods and actions",
    "analysis/plan.py": "dry=true of a study without claims need not load what judges them",
    **dict.fromkeys(
        (
            "analysis/chosen.py",
            "analysis/claims.py",
            "analysis/compare.py",
            "analysis/report.py",
            "analysis/tables.py",
            "analysis/published/__main__.py",
            "analysis/studies/__init__.py",
        ),
        "a command answers --help and refuses a wrong key before pandas and matplotlib are there",
    ),
}
"""Doors that may open late, and why."""


def test_first_party_imports_stand_at_the_top():
    """A late import hides a wall; the doors that are late on purpose are listed with their reason."""
    late = []
    for path in sorted([*(ROOT / "kdexp").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]):
        name = path.relative_to(ROOT).as_posix()
        if name in LAZY:
            continue
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                names += ["analysis"] if isinstance(node, ast.ImportFrom) and node.level else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                late += [f"{name}:{node.lineno} {n}" for n in names if n.split(".")[0] in ("kdexp", "analysis")]
    assert not late, "first-party imports inside functions:\n  " + "\n  ".join(late)


def test_no_module_imports_itself_by_a_detour():
    """Late imports count too; what only type checkers import does not."""
    graph = grimp.build_graph("kdexp", "analysis", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 200
    order = TopologicalSorter(imports)
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(reversed(error.args[1]))}", pytrace=False)
