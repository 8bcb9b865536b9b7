"""The wheel, installed into an environment of its own and used beside a project that has its own ``analysis/``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.analysis.synthetic import make_result, write_points, write_run
from tests.conftest import ENVIRONMENT, REPOSITORY
from tests.test_runs import toy

pytestmark = pytest.mark.slow
SOURCES = ("kdexp", "analysis", "conf", "setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md")
STRANGER = "raise SystemExit('a package analysis that is not ours was imported')\n"


def run(*command: str | Path, cwd: Path, code: int = 0, **more: str) -> str:
    """Run a program with nothing of this checkout on its path; return what it prints."""
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "KDEXP_DATA")}
    variables |= ENVIRONMENT | {"COLUMNS": "160"} | more
    done = subprocess.run([*map(str, command)], cwd=cwd, env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by way of a source distribution, as it would be published."""
    place = tmp_path_factory.mktemp("wheel")
    (place / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, place / "source" / name)
    hooks = "from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    run(sys.executable, "-c", f"import sys; {hooks}", place, cwd=place / "source")
    (packed,) = place.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    run(*pip, "-w", place, packed, cwd=place)
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an environment that has the wheel, and beside it the libraries of this one."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel, cwd=place)
    inside = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip())
    (inside / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return place / "bin" / "kdexp"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a package ``analysis`` of its own, which must not be imported."""
    (tmp_path / "analysis").mkdir()
    for name in ("__init__", "tables", "plan", "summary"):
        (tmp_path / "analysis" / f"{name}.py").write_text(STRANGER)
    return tmp_path


def test_one_package_is_installed(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"kdexp"}
    for folder in ("conf", "analysis"):
        there = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / folder).rglob("*") if path.is_file()}
        there = {name for name in there if "__pycache__" not in name}
        packed = {name.removeprefix("kdexp/") for name in names if name.startswith(f"kdexp/{folder}/")}
        assert packed == there
    assert "kdexp/models/architectures/resnet20/config.json" in names


def test_it_is_used_beside_a_strangers_analysis(program: Path, project: Path) -> None:
    python = program.with_name("python")
    for start in ([program], [python, "-m", "kdexp"]):
        assert "kdexp 0." in run(*start, "--version", cwd=project)
        assert "Vanilla KD" in run(*start, "--help", cwd=project)
    told = run(program, "+experiment=quickstart", "dry=true", cwd=project)
    assert "24 to do" in told or "24 runs" in told
    assert "distilling_helps (" in told, "the analysis is found by its entry point"
    place = run(
        python, "-c", "import kdexp, kdexp.analysis.tables as t; print(kdexp.__file__, t.__file__)", cwd=project
    )
    assert place.count("site-packages/kdexp/") == 2 and str(REPOSITORY) not in place

    results = [make_result("small", "rte", o, "first", s) for o in ("kd", "finetune") for s in (1, 2)]
    for result in results:
        write_run(project / "multirun", result)
    write_points(project / "multirun", "small", results)
    for start in ([program], [python, "-m", "kdexp"]):
        words = ["tables", "small", "source=folders", "figure=no", "json=true"]
        assert json.loads(run(*start, *words, cwd=project))["study"] == "small"
    assert "Written" in run(python, "-m", "kdexp.analysis.report", "small", "source=folders", cwd=project)
    assert (project / "multirun" / "small" / "report.html").is_file()
    assert json.loads(run(program, "plugins", "json=true", cwd=project)) == {"plugins": [], "problems": []}


def test_a_run_in_an_empty_folder(program: Path, tmp_path: Path, tiny_bert_dir: Path, tiny_csv_task: Path) -> None:
    place = tmp_path / "empty"
    place.mkdir()
    run(program, "objective=att_kl", *toy(tiny_bert_dir, tiny_csv_task), cwd=place)
    (path,) = place.glob("multirun/adhoc/*/result.json")
    assert json.loads(path.read_text())["labels"]["objective"] == "att_kl"
