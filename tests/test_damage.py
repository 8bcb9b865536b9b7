"""Every JSON file that a study leaves, damaged in every way: named by whoever reads it, mended by the same command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdexp.cli import commands
from kdexp.common import files
from tests.conftest import RunProgram
from tests.damage import DAMAGE
from tests.test_runs import toy

STUDY = ["-m", "objective=kd", "seed=1,2", "study=two", "hydra/launcher=basic"]
KINDS = (
    "two/*/result.json", "two/*/status.json", "two/*/tracking.json", "two/study.json", ".store/*/meta.json",
    ".store/cache/encoded/*/meta.json", ".store/cache/[ft]*/*.json",
)  # fmt: skip
"""Below ``multirun``: every kind of record that a study leaves."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


@pytest.fixture
def words(tiny_bert_dir: Path, tiny_csv_task: Path, folder: Path) -> list[str]:
    """The command of a study of two runs; its data lie where the next test finds them too."""
    csv = folder / "csv"
    if not csv.exists():
        shutil.copytree(tiny_csv_task, csv)
    return [*STUDY, *(word for word in toy(tiny_bert_dir, csv) if word != "tracking=off")]


@pytest.fixture
def study(kdexp: RunProgram, words: list[str], folder: Path) -> Iterator[Path]:
    """``multirun`` of the finished study, the same for every test: made once, given back as it was."""
    root, kept = folder / "multirun", folder / "kept"
    if not kept.exists():
        done = kdexp(words, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.copytree(root, kept)
    yield root
    shutil.rmtree(root)
    shutil.copytree(kept, root)


def records(root: Path) -> dict[str, list[Path]]:
    return {kind: sorted(root.glob(kind)) for kind in KINDS}


def facts(root: Path) -> dict[str, Any]:
    """What must come out again: scores, and the students' weights."""
    found = [json.loads(path.read_text()) for path in sorted((root / "two").glob("*/result.json"))]
    weights = [files.checksum(Path(result["student"]["weights"]) / "model.safetensors") for result in found]
    return {
        r["run"]["name"]: (r["scores"], r["best"], r["teacher"]["scores"], [s["name"] for s in r["stages"]], w)
        for r, w in zip(found, weights, strict=True)
    }


def said(capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[int, str]:
    """Carry out a verb; what it prints is put on one line, for names are long."""
    capsys.readouterr()
    code = commands.main(words)
    out, err = capsys.readouterr()
    return code, "".join((out + err).split())


def test_the_study_leaves_every_kind_of_record_and_no_other_json(study: Path):
    kinds = records(study)
    assert all(kinds.values()), kinds
    known = {path for paths in kinds.values() for path in paths}
    # Of a model: not read as JSON, and held by the checksum in meta.json.
    models = {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {p for p in study.rglob("*.json") if p.name not in models and "mlartifacts" not in p.parts} == known


READERS: dict[str, tuple[Callable[[Path], list[str]], tuple[str, ...]]] = {
    "status": (lambda root: ["status", "two", f"root={root}"], ("result", "study")),
    "list": (lambda root: ["list", f"root={root}"], ("study",)),
    "store gc": (lambda root: ["store", f"store={root}/.store", "gc"], ("result", "meta")),
    "store list": (lambda root: ["store", f"store={root}/.store", "list"], ("meta",)),
    "store verify": (lambda root: ["store", f"store={root}/.store", "verify"], ("meta",)),
    "tables": (lambda root: ["tables", "two", f"root={root}", "source=folders", "figure=no"], ("result", "study")),
}
"""Verb -> its words, and what it cannot do without."""


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", KINDS)
def test_verbs_name_what_is_damaged_and_go_on(kind: str, damage: str, study: Path, capsys: pytest.CaptureFixture[str]):
    path = records(study)[kind][0]
    DAMAGE[damage](path)
    needs = "meta" if kind == ".store/*/meta.json" else path.stem if "cache" not in kind else ""
    for verb, (words, cannot_do_without) in READERS.items():
        if verb == "tables" and not kind.startswith("two"):  # it takes longest, and never looks there
            continue
        code, text = said(capsys, words(study))
        assert code in (0, 1, 2)
        if needs in cannot_do_without:
            assert f"{path}isdamaged(" in text, (verb, text)
            assert code or verb in ("store gc", "store list"), verb
        else:
            assert "isdamaged" not in text, (verb, text)
    if kind == "two/*/result.json":
        code, text = said(capsys, READERS["list"][0](study))
        assert code == 0 and "1finished,1damaged" in text


def _all(root: Path, kinds: tuple[str, ...], damages: list[str]) -> list[Path]:
    """Damage every record of these kinds, each in another way."""
    paths = [path for kind in kinds for path in records(root)[kind]]
    for number, path in enumerate(paths):
        DAMAGE[damages[number % len(damages)]](path)
    return paths


def _mended(kdexp: RunProgram, words: list[str], root: Path, expected: dict[str, Any], capsys: Any) -> str:
    """The same command makes all of it good; returns what it said, and what the runs' logs say."""
    done = kdexp(words, cwd=root.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert facts(root) == expected
    for verb, (verb_words, _) in READERS.items():
        code, text = said(capsys, verb_words(root))
        assert code == 0 and "isdamaged" not in text, (verb, text)
    return done.stdout + done.stderr + "".join(p.read_text() for p in root.glob("two/*/run.log"))


def test_the_same_command_mends_records_of_runs(kdexp, words, study, capsys):
    """The stages are whole, so nothing is trained again."""
    expected = facts(study)
    before = {path: path.stat().st_mtime_ns for path in study.glob(".store/*/model.safetensors")}
    paths = _all(study, KINDS[:4], ["flipped", "null", "cut", "object"])
    text = _mended(kdexp, words, study, expected, capsys)
    for path in paths:
        if path.name == "result.json":
            assert f"{path.relative_to(study.parent)} is damaged (" in text, path
            assert path.with_name("result.json.damaged").is_file()
    assert {path: path.stat().st_mtime_ns for path in study.glob(".store/*/model.safetensors")} == before


def test_the_same_command_builds_damaged_stages_again(kdexp, words, study, capsys):
    """One stage for every kind of damage: a record, weights, a missing file; and both caches."""
    expected = facts(study)
    for path in study.glob("two/*/result.json"):
        path.unlink()
    _all(study, KINDS[4:], ["number", "flipped", "zeros"])
    stages = sorted(path.parent for path in study.glob(".store/*/model.safetensors"))
    (stages[0] / "config.json").unlink()
    text = _mended(kdexp, words, study, expected, capsys)
    for stage in stages:
        assert f".store/{stage.name}/" in text and f"the stage {stage.name[:12]} is set aside in" in text
    assert text.count("is made anew") >= 2
    assert not list(study.glob(".store/damaged/*")), "gc, which was among the verbs, frees what was set aside"


def test_a_result_never_lacks_what_a_missing_parent_would_say(kdexp, words, study):
    """The students' stages are there, their teacher's is not: perhaps somebody is building it again just now."""
    expected = facts(study)
    for path in study.glob("two/*/result.json"):
        path.unlink()
    (teacher,) = (p.parent for p in study.glob(".store/*/meta.json") if json.loads(p.read_text())["name"] == "teacher")
    shutil.rmtree(teacher)
    done = kdexp(words, cwd=study.parent)
    assert done.returncode == 0 and facts(study) == expected, done.stdout + done.stderr


@pytest.mark.slow
def test_damaged_weights_alone_are_enough(kdexp, words, study, capsys):
    expected = facts(study)
    for path in study.glob("two/*/result.json"):
        path.unlink()
    stages = sorted(path.parent for path in study.glob(".store/*/model.safetensors"))
    for stage, damage in zip(stages, ("flipped", "empty", "cut"), strict=False):
        DAMAGE[damage](stage / "model.safetensors")
    assert "model.safetensorsisdamaged" in said(capsys, READERS["store verify"][0](study))[1]
    text = _mended(kdexp, words, study, expected, capsys)
    assert text.count("its sha256 is not the one noted when it was written") >= len(stages)


def test_following_an_advice_works(kdexp, words, study, capsys):
    """What messages tell people to do, or what they do without being told: delete it, or start the study again."""
    expected, (first, second) = facts(study), sorted(path.parent for path in study.glob("two/*/result.json"))
    DAMAGE["cut"](study / "two" / "study.json")
    (first / "result.json").unlink()
    (second / "status.json").unlink()
    _mended(kdexp, words, study, expected, capsys)


def test_an_edited_score_is_noticed(study, capsys):
    path = next(study.glob("two/*/result.json"))
    result = json.loads(path.read_text())
    result["scores"]["validation"]["accuracy"] = 0.99
    path.write_text(json.dumps(result))
    for verb in ("status", "tables"):
        code, text = said(capsys, READERS[verb][0](study))
        assert code and "itschecksumisnotthatofitscontent" in text


def test_looking_names_damage_and_changes_nothing(kdexp, words, study):
    for path in study.glob("two/*/result.json"):
        DAMAGE["null"](path)
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*") if path.is_file()}
    done = kdexp([*words, "dry=true"], cwd=study.parent)
    assert done.returncode == 0 and "2 damaged" in done.stdout and done.stderr.count("is damaged (") == 2
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*") if path.is_file()} == before


def test_a_single_run_is_mended_too(kdexp, words, folder, study):
    single = [word for word in words if word not in STUDY] + ["objective=kd", "study=one"]
    assert kdexp(single, cwd=folder).returncode == 0
    (path,) = study.glob("one/*/result.json")
    scores = json.loads(path.read_text())["scores"]
    DAMAGE["flipped"](path)
    done = kdexp(single, cwd=folder)
    assert done.returncode == 0 and done.stderr.count("is damaged (") == 1, done.stderr
    assert json.loads(path.read_text())["scores"] == scores
