"""Names are names: one rule for kdexp and the analysis, asked before the first run."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from kdexp.common import arguments, names
from kdexp.config import identity
from kdexp.run import spec

GOOD = ("adhoc", "2024", "Größe", "étude_1", "研究", "me@home", "a.b-c+d", "_x", "x" * 48, "kd_ft", "हिन्दी")
BAD = (
    "",
    " ",
    ".",
    "..",
    "../x",
    "../../x",
    "a/b",
    "/etc/x",
    "a\\b",
    ".store",
    ".hidden",
    "-x",
    "+x",
    "@x",
    "a b",
    " a",
    "a ",
    "a\n",
    "a\nb",
    "a\tb",
    "\x1b[31mred",
    "a\x00b",
    "a\x7fb",
    "a\x9bb",
    "a\u202eb",
    "a\u200bb",
    "a\u2028b",
    "a\ufeff",
    "\ud800",
    "$a",
    "a$b",
    "a=b",
    "a|b",
    "a&b",
    "a%b",
    "a#b",
    "a{b",
    "a}b",
    "a*b",
    "a?b",
    "a:b",
    "a;b",
    "a,b",
    "a'b",
    'a"b',
    "a<b",
    "a>b",
    "a`b",
    "~",
    "~x",
    "${x}",
    "x" * 49,
    "x" * 300,
    "研" * 22,
    "\u0301a",
    unicodedata.normalize("NFD", "Größe"),
)
NO_TEXTS = (None, 5, 1.5, True, ["a"], {"a": 1})


@pytest.mark.parametrize("name", GOOD)
def test_a_name(name: str):
    assert names.problem(name) is None and arguments.study_name(name) == name


@pytest.mark.parametrize("name", [*BAD, *NO_TEXTS], ids=repr)
def test_no_name(name: Any):
    assert names.problem(name)
    if isinstance(name, str):
        with pytest.raises(ValueError):
            arguments.study_name(name)
        other = names.suggestion(name)
        assert other == "" or names.problem(other) is None


@pytest.mark.parametrize("name", ["mlartifacts", "mlruns", "mlflow.db", "MLartifacts"])
def test_a_name_of_something_else(name: str):
    assert names.problem(name) is None and names.study_problem(name)
    with pytest.raises(ValueError, match="something else"):
        arguments.study_name(name)


def test_the_name_that_was_meant_is_offered():
    assert names.suggestion("Größe Übung 1") == "Größe_Übung_1"
    assert "such as Größe_Übung_1" in str(names.problem("Größe Übung 1"))
    assert names.suggestion("../../x") == "x" and names.suggestion("///") == ""


def test_three_long_names_are_a_folder(tmp_path: Path):
    longest = "研" * (names.MOST_BYTES // 3)
    assert names.problem(longest) is None
    (tmp_path / f"{longest}-{longest}_ft-{longest}-s{2**40}-01234567").mkdir()


def test_a_study_that_some_machines_take_for_another(tmp_path: Path):
    for folder in ("Quick", unicodedata.normalize("NFD", "Übung")):
        (tmp_path / folder).mkdir()
    assert names.twin("quick", tmp_path) == "Quick" and names.twin("Quick", tmp_path) is None
    assert names.twin("Übung", tmp_path) is not None and names.twin("other", tmp_path) is None


def composed(**changes: Any) -> Any:
    """The shipped configuration with other names, typed."""
    from hydra import compose, initialize_config_dir

    from kdexp.cli.main import CONFIG_PATH, resolvers
    from kdexp.config.resolve import resolve

    resolvers()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        raw = resolve(compose("config"))
    for key, value in changes.items():
        group, _, inner = key.partition("__")
        if inner:
            raw[group] = {**raw[group], inner: value}
        else:
            raw[key] = value
    config, problems = spec.typed(raw)
    assert config is not None, problems
    return config


def test_every_name_of_a_configuration_is_asked():
    where = ("task__name", "objective__name", "init__name", "mapping__name", "teacher__name", "student__name", "study")
    config = composed(**dict.fromkeys(where, "../../x"))
    said = identity.name_problems(config)
    assert [text.partition("=")[0] for text in said] == [
        "study",
        "teacher.name",
        "student.name",
        "objective.name",
        "mapping.name",
        "init.name",
        "task.name",
    ]
    assert all("such as x" in text for text in said)
    term = composed(objective__prediction={"a/b": {"_target_": "kdexp.objectives.kd.KD"}})
    assert identity.name_problems(term)[0].startswith("objective.prediction.a/b='a/b' is no name")
    labels = composed(task__label_names=["good", "ba\x1b[31md", ""])
    assert [text.partition(" ")[0] for text in identity.name_problems(labels)] == ["task.label_names:"] * 2
    assert identity.name_problems(composed()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["study=../../escaped", "init.name=../../../x"],
        ["study='\\e[31m'"],
        ["study="],
        ["task.name=/etc/x"],
        ["-m", "study=../x", "seed=1,2"],
    ],
    ids=" ".join,
)
def test_nothing_is_written(kdexp, tmp_path: Path, words: list[str]):
    done = kdexp([*words, "task=local", "task.folder=nowhere"])
    assert done.returncode == 2 and "change before this can run" in done.stderr, done.stderr
    assert "\x1b" not in done.stderr + done.stdout and not [*tmp_path.iterdir()]
