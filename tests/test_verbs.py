"""Verbs of ``python -m kdexp``: what they take, refuse and print, and the spellings they had before."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdexp.cli import commands, verbs
from kdexp.common import arguments, beside
from kdexp.common.arguments import Command, Group, Key
from kdexp.store.stage import Stage
from kdexp.store.store import Store
from kdexp.sweep import study as studies
from tests.analysis.synthetic import make_result, write_run
from tests.conftest import RunProgram

KEYS = {
    "study": Key("a study", bare=True),
    "days": Key("days", "7", kind=arguments.number),
    "port": Key("a port", "5000", kind=arguments.whole),
    "json": arguments.JSON,
    "source": Key("where", "folders", ("mlflow", "folders")),
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """``small`` with one finished and one new run, and ``whole`` with a finished one; returns the root."""
    results = [make_result("small", "rte", "kd", "first", seed, run__name=f"rte-kd-first-s{seed}") for seed in (1, 2)]
    for name in ("small", "whole"):
        rows = [
            {"id": r["run"]["id"], "name": r["run"]["name"], "labels": r["labels"], "seed": seed, "overrides": []}
            for seed, r in enumerate(results if name == "small" else results[:1], start=1)
        ]
        studies.write(tmp_path / name, name, "full", f"python -m kdexp +experiment={name}", rows)
        write_run(tmp_path, results[0] | {"run": results[0]["run"] | {"study": name}})
    return tmp_path


# --- the parser ----------------------------------------------------------------------------------------------------


def test_words_become_typed_values():
    given = arguments.parse(["quickstart", "days=1.5", "json=true"], KEYS)
    assert given == {"study": "quickstart", "days": 1.5, "port": 5000, "json": True, "source": "folders"}
    assert arguments.parse(["study=a", "source=mlflow"], KEYS)["study"] == "a"
    assert arguments.parse(["study=b=c"], KEYS)["study"] == "b=c"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "study= must be given: a study."),
        (["a", "b"], "'b' is not key=value."),
        (["a", "sorce=mlflow"], "'sorce' is no key (value 'mlflow'). Did you mean source=...?"),
        (["a", "colour=red"], "'colour' is no key (value 'red')."),
        (["a", "source=wandb"], "source='wandb' is not one of mlflow, folders."),
        (["a", "days=nan"], "days='nan' is no number."),
        (["a", "days=x"], "days='x' is no number."),
        (["a", "port=5e3"], "port='5e3' is no number; a whole one is needed."),
        (["a", "json=yes"], "json='yes' is not one of true, false."),
        (["a", "study=b"], "study= is given twice, as 'a' and 'b'."),
    ],
)
def test_wrong_words_are_sentences(words: list[str], sentence: str):
    with pytest.raises(ValueError) as caught:
        arguments.parse(words, KEYS)
    assert str(caught.value) == f"{sentence} Keys: study, days, port, json, source"


def test_all_problems_come_at_once():
    with pytest.raises(ValueError, match=r"'x' is no key.*port='y'.*study= must be given"):
        arguments.parse(["x=1", "port=y"], {"port": KEYS["port"], "study": KEYS["study"]})


@pytest.mark.parametrize("name", ["../secrets", "a/b", "", ".hidden", "a b"])
def test_a_study_is_one_folder(name: str):
    with pytest.raises(ValueError, match="one folder name"):
        arguments.parse([f"study={name}"], {"study": arguments.STUDY})


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError("no"), 2), (RuntimeError("no"), 1), (OSError("no"), 1), (KeyboardInterrupt(), 130)]
)
def test_what_goes_wrong_is_a_code_and_a_line(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]):
    def fail() -> int:
        raise error

    assert arguments.carry_out("program", Command("fails", fail), []) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("program") and err.count("\n") == 1


def test_json_has_no_numbers_that_json_does_not_know(capsys: pytest.CaptureFixture[str]):
    arguments.print_json({"score": float("nan"), "range": [float("-inf"), 1.0]})
    assert json.loads(capsys.readouterr().out) == {"score": None, "range": [None, 1.0]}


# --- every verb ----------------------------------------------------------------------------------------------------

INNER = [f"{verb} {name}" for verb in ("store", "tracking") for name in commands.load(verb).commands]
EVERY = [*commands.names(), *INNER]


@pytest.mark.parametrize("verb", ["help", *EVERY])
def test_help_fits_a_terminal(verb: str, capsys: pytest.CaptureFixture[str]):
    assert commands.main([*verb.split(), *([] if verb == "help" else ["--help"])]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.startswith("python -m ")
    assert max(map(len, out.splitlines())) <= 80
    if verb == "help":
        assert all(f"\n  {name} " in out for name in commands.names())


@pytest.mark.parametrize("verb", [verb for verb in EVERY if verb != "tracking"])
def test_a_wrong_key_is_one_sentence(verb: str, capsys: pytest.CaptureFixture[str]):
    assert commands.main([*verb.split(), "rot=x"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "'rot' is no key (value 'x')" in err


def test_a_word_that_is_no_verb_is_no_run(kdexp: RunProgram, tmp_path: Path):
    done = kdexp(["statsu", "quickstart"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "'statsu' is no verb. Did you mean status?" in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["seed=1", "+experiment=quickstart", "~tracking", "-m", "--help", "--cfg"])
def test_runs_keep_their_words(word: str):
    assert not commands.asked([word]) and not commands.asked([])


def test_a_new_verb_is_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "greet.py").write_text(
        "from kdexp.common.arguments import Command, Key\n"
        "VERB = Command('Says hello.', lambda name: print('hello', name) or 0, {'name': Key('whom', bare=True)})\n"
    )
    monkeypatch.setattr(verbs, "__path__", [*verbs.__path__, str(tmp_path)])
    assert commands.main(["greet", "you"]) == 0
    assert commands.main(["help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("hello you\n") and "greet" in out
    monkeypatch.delitem(sys.modules, "kdexp.cli.verbs.greet")


def test_verbs_are_light_and_leave_analysis_alone(kdexp: RunProgram, tmp_path: Path):
    code = (
        "import sys\nfrom kdexp.cli.main import main\n"
        "assert main(['list', 'root=.']) == 0\n"
        "print(sorted({'hydra', 'torch', 'mlflow', 'pandas', 'analysis', 'kdexp.analysis'} & set(sys.modules)))\n"
    )
    (tmp_path / "program.py").write_text(code)
    done = kdexp([], module="program", cold=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


@pytest.mark.parametrize("name", commands.ANALYSIS)
def test_without_analysis_its_verbs_say_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(beside, "PACKAGE", tmp_path / "kdexp")
    assert commands.main([name, "quickstart"]) == 2
    err = capsys.readouterr().err
    assert f"kdexp {name} is done by kdexp's analysis, which is not installed here" in err and err.count("\n") == 1
    assert name not in commands.names() and "status" in commands.names()


# --- what they print -----------------------------------------------------------------------------------------------


def documented(command: str) -> list[str]:
    """The keys of a command's JSON, in the order of docs/operations.md."""
    text = (Path(__file__).resolve().parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{command}` \| `([{{\[][^`]+)`", text, re.MULTILINE)
    assert row, command
    return re.findall(r"\w+", re.sub(r": \{state: count\}", "", row[1]))


def test_status_for_people_and_programs(study: Path, capsys: pytest.CaptureFixture[str]):
    assert commands.main(["status", "small", f"root={study}"]) == 1
    assert "2 runs: 1 finished, 1 new" in capsys.readouterr().out
    assert commands.main(["status", "study=small", f"root={study}", "json=true"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [*told, *told["runs"][0]] == documented("status STUDY")
    assert (told["study"], told["command"]) == ("small", "python -m kdexp +experiment=small")
    assert [(run["state"], run["metric"]) for run in told["runs"]] == [("finished", "accuracy"), ("new", None)]
    assert commands.main(["status", "whole", f"root={study}", "json=true"]) == 0
    capsys.readouterr()
    assert commands.main(["status", "smal", f"root={study}"]) == 2
    assert "there are: small, whole" in capsys.readouterr().err


def test_list_of_studies(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (study / "adhoc" / "run").mkdir(parents=True)  # runs without a study are none
    assert commands.main(["list", f"root={study}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("small     2 runs: 1 finished, 1 new") and lines[-1].startswith("2 studies in ")
    assert commands.main(["list", f"root={study}", "json=true"]) == 0
    found = {one["study"]: one for one in json.loads(capsys.readouterr().out)}
    assert list(found["small"]) == documented("list")
    assert found["small"]["states"] == {"finished": 1, "new": 1} and found["whole"]["runs"] == 1
    assert commands.main(["list", f"root={study}/none"]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_store_list_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def write(work: Path) -> dict[str, float]:
        (work / "data.txt").write_text("12345")
        return {"score": 1.0}

    store = Store(tmp_path)
    stage = Stage("teacher", "teacher", {"a": 1})
    store.build(stage, write, lambda text: None)
    for words in (["store", "json=true"], ["store", "list", "json=true"]):
        assert commands.main([*words, f"store={tmp_path}"]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert list(row) == documented("store list")
        assert (row["key"], row["name"]) == (stage.key, "teacher") and row["bytes"] > 5
    store.drop_weights(stage.key)
    assert commands.main(["store", "list", "json=true", f"store={tmp_path}"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["bytes"] == 0
    assert commands.main(["store", "show", "x", f"store={tmp_path}"]) == 2
    assert "0 stages begin with x" in capsys.readouterr().err
    assert commands.main(["store", "gc", "work", "days=-1", f"store={tmp_path}"]) == 2
    assert "days='-1' is below 0" in capsys.readouterr().err


def test_vectors_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    vector = {"id": "v", "function": "sps_plan", "inputs": {}, "params": {"layers": 1}, "tolerance": 0}
    path = tmp_path / "vectors.json"
    path.write_text(json.dumps({"format": "kdexp-vectors-1", "vectors": [vector | {"expected": [[0, False]]}]}))
    assert commands.main(["vectors", str(path), "json=true"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [*told, *told["vectors"][0]] == documented("vectors FILE")
    assert (told["passed"], told["failed"]) == (0, 1)
    assert told["vectors"][0]["got"] == [[0, False], [0, True]]


def test_the_store_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("KDEXP_STORE", str(tmp_path / "elsewhere"))
    assert commands.main(["store"]) == 0
    assert str(tmp_path / "elsewhere") in capsys.readouterr().out


def test_a_group_takes_its_command_anywhere(capsys: pytest.CaptureFixture[str]):
    group = Group("g", {"show": Command("s", lambda key: print(key) or 0, {"key": Key("k", bare=True)})})
    assert arguments.carry_out("p", group, ["key=1", "show"]) == 0
    assert arguments.carry_out("p", group, ["show", "show"]) == 0
    assert arguments.carry_out("p", group, []) == 2
    out, err = capsys.readouterr()
    assert out == "1\nshow\n" and "which command?; choose one of show" in err


# --- former spellings ----------------------------------------------------------------------------------------------

SPELLINGS: dict[str, tuple[str, Callable[[Path], list[str]], list[str]]] = {
    "kdexp.check": ("vectors", lambda root: [str(root / "none.json")], []),
    "kdexp.store": ("store", lambda root: [f"store={root}", "list"], []),
    "kdexp.study": ("status", lambda root: ["small", f"root={root}"], ["status"]),
    "kdexp.tracking": ("tracking", lambda root: ["sync", f"root={root}/none"], []),
    "analysis.tables": (
        "tables",
        lambda root: ["study=small", f"root={root}", "source=folders", "incomplete=allow"],
        [],
    ),
    "analysis.claims": ("claims", lambda root: ["study=small", f"root={root}", "source=folders"], []),
    "analysis.published": ("published", lambda root: ["study=small", f"root={root}"], []),
    "analysis.report": ("report", lambda root: ["study=small", f"root={root}", "source=folders"], []),
}


@pytest.mark.parametrize("module", SPELLINGS)
def test_former_spellings_do_the_same(module: str, kdexp: RunProgram, study: Path):
    verb, words, before = SPELLINGS[module]
    now = kdexp([verb, *words(study)])
    then = kdexp([*before, *words(study)], module=module)
    assert (now.returncode, now.stdout, now.stderr) == (then.returncode, then.stdout, then.stderr)
    assert now.stdout + now.stderr and "Traceback" not in now.stderr


def test_a_study_may_stand_alone_for_analysis(study: Path, capsys: pytest.CaptureFixture[str]):
    words = [f"root={study}", "source=folders", "incomplete=allow", "figure=no"]
    assert commands.main(["tables", "small", *words]) == 0
    bare = capsys.readouterr().out
    assert commands.main(["tables", "study=small", *words]) == 0
    assert capsys.readouterr().out == bare and "rte" in bare.lower()
