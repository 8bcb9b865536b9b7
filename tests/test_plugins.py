"""Packages that bring choices to kdexp by being installed: a real one, built of the examples of docs/extending.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdexp.cli import commands
from kdexp.common import contributed, registry
from tests.conftest import BAD, GOOD, REPOSITORY, RunProgram, sentence
from tests.test_runs import toy

GUIDE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
MOVED = {
    "kdexp/heads/tags.py": "tags_head.py",
    "kdexp/inits/outside_in.py": "outside_in.py",
    "kdexp/methods/average.py": "average.py",
    "kdexp/objectives/norms.py": "norms.py",
    "kdexp/tasks/text/tags.py": "tags.py",
    "conf/init/outside_in.yaml": "conf/init/outside_in.yaml",
    "conf/objective/average.yaml": "conf/objective/average.yaml",
    "conf/objective/norms.yaml": "conf/objective/norms.yaml",
    "conf/task/tags.yaml": "conf/task/tags.yaml",
}
"""Examples that become files of the package ``mylab_kd``."""
NAMES = {
    "kdexp.heads.tags": "mylab_kd.tags_head",
    "kdexp.tasks.text.tags": "mylab_kd.tags",
    "kdexp.inits.outside_in": "mylab_kd.outside_in",
    "kdexp.objectives.norms": "mylab_kd.norms",
    "method: average": "method: mylab_kd.average.Average",
    '"average.train"': '"mylab_kd.average.train"',
}
"""Names in them -> what they are called there."""
IMPORTED = "import pathlib\npathlib.Path('imported').touch()\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The package, installed by pip into a folder of its own; returns the environment that has it."""
    place = tmp_path_factory.mktemp("plugin")
    (project,) = re.findall(r'```toml\n(.*?entry-points."kdexp.plugins".*?)```', GUIDE, re.S)
    written = {"pyproject.toml": project, "mylab_kd/__init__.py": IMPORTED}
    blocks = dict(re.findall(r"```\w+\n# file: (\S+)\n(.*?)```", GUIDE, re.S))
    for path, name in MOVED.items():
        content = blocks[path]
        for before, after in NAMES.items():
            content = content.replace(before, after)
        written[f"mylab_kd/{name}"] = content
    for name, content in written.items():
        (place / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "source" / name).write_text(content, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    done = subprocess.run([*pip, str(place / "lib"), str(place / "source")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {"PYTHONPATH": f"{REPOSITORY}:{place / 'lib'}"}


def test_an_installed_package_brings_a_task_an_init_an_objective_and_a_method(
    installed: dict[str, str], kdexp: RunProgram, tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tags"
    folder.mkdir()
    for split, rows in (("train", range(32)), ("validation", range(64, 80))):
        texts = [sentence(row, row % 2).split() for row in rows]
        tags = [[f"{w} {'good' if w in GOOD else 'bad' if w in BAD else 'other'}" for w in words] for words in texts]
        (folder / f"{split}.txt").write_text("\n\n".join("\n".join(lines) for lines in tags))
    words = [word for word in toy(tiny_bert_dir, tiny_csv_task) if not word.startswith("task")]
    words += ["task=tags", f"task.folder={folder}", "init=outside_in"]
    shown = kdexp([*words, "objective=norms", "plan=show"], env=installed)
    assert shown.returncode == 0 and "intermediate" in shown.stdout, shown.stdout + shown.stderr
    done = kdexp([*words, "objective=average"], env=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "multirun" / "adhoc").glob("tags-average-outside_in-s1-*/result.json")
    result = json.loads(path.read_text())
    assert [stage["name"] for stage in result["stages"]] == ["teacher", "average"]
    assert result["runtime"]["versions"]["mylab-kd"] == "0.1"


def test_what_is_installed_is_listed_and_not_imported(
    installed: dict[str, str],
    kdexp: RunProgram,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(installed["PYTHONPATH"].partition(":")[2])
    assert commands.main(["plugins", "json=true"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == []
    assert told["plugins"] == [
        {
            "name": "mylab",
            "package": "mylab_kd",
            "distribution": "mylab-kd",
            "version": "0.1",
            "choices": {"init": ["outside_in"], "objective": ["average", "norms"], "task": ["tags"]},
        }
    ]
    assert commands.main(["help", "init"]) == 0
    assert "The bottom half and the top half of the teacher. [mylab-kd" in " ".join(capsys.readouterr().out.split())
    assert kdexp(["objective=kd", "--cfg", "job"], env=installed).returncode == 0
    assert not (tmp_path / "imported").exists()


def test_a_package_that_is_no_plugin_is_not_imported_for_a_strangers_file(
    installed: dict[str, str], kdexp: RunProgram, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text(IMPORTED)
    choice = tmp_path / "own" / "objective" / "bad.yaml"
    choice.parent.mkdir(parents=True)
    choice.write_text("defaults: [kd, _self_]\nprediction: {kd: {_target_: other.Loss}}\n")
    words = ["--config-dir", str(tmp_path / "own"), "objective=bad", "plan=show"]
    done = kdexp(words, env={"PYTHONPATH": f"{installed['PYTHONPATH']}:{tmp_path}"})
    assert done.returncode == 2 and "other.Loss is not allowed" in done.stderr and "mylab_kd." in done.stderr
    assert not (tmp_path / "imported").exists()


# --- what cannot be used -------------------------------------------------------------------------------------------


def offered(place: Path, value: str, files: tuple[str, ...] = ("lab/__init__.py",), name: str = "lab") -> None:
    """Write what pip would have installed: a distribution of these files that offers ``value``."""
    record = "".join(f"{file},,\n" for file in files)
    notes = {"METADATA": f"Name: {name}\nVersion: 1.0\n", "RECORD": record}
    notes["entry_points.txt"] = f"[kdexp.plugins]\n{name} = {value}\n"
    written = {f"{name}-1.0.dist-info/{note}": text for note, text in notes.items()} | dict.fromkeys(files, "")
    for path, text in written.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python imports from."""
    monkeypatch.syspath_prepend(str(tmp_path))
    contributed.plugins.cache_clear()
    yield tmp_path
    contributed.plugins.cache_clear()


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("os", "is not its own"),
        ("kdexp.objectives", "is not its own"),
        ("torch", "is not its own"),
        ("lab:main", "is no name of a package"),
        ("lab.inner", "is not there"),
    ],
)
def test_a_plugin_speaks_for_its_own_package(
    place: Path, value: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    offered(place, value)
    (said,) = contributed.problems()
    assert said == f"lab 1.0 offers {value!r} as a plugin of kdexp (lab), which {why}: correct or uninstall it."
    assert registry.allowed_packages() == () and contributed.usable() == []
    assert commands.main(["plugins"]) == 1 and said in capsys.readouterr().out


def test_a_choice_that_exists_already_is_named(place: Path, kdexp: RunProgram) -> None:
    offered(place, "lab", ("lab/__init__.py", "lab/conf/objective/kd.yaml", "lab/conf/init/mine.yaml"))
    assert contributed.problems() == [
        "conf/objective/kd.yaml is offered by kdexp and by lab: rename all but one, or uninstall the plugin."
    ]
    done = kdexp(["objective=finetune", "plan=show"], env={"PYTHONPATH": f"{REPOSITORY}:{place}"})
    assert done.returncode == 2 and "offered by kdexp and by lab" in done.stderr and done.stdout == ""
