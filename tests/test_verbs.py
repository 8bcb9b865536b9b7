"""Verbs of ``python -m kdexp``: what they take, refuse and print, and the spellings they had before."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdexp.cli import commands, verbs
from kdexp.common import arguments, beside
from kdexp.common.arguments import Command, Group, Key
from kdexp.store.stage import Stage
from kdexp.store.store import Store
from kdexp.sweep import study as studies
from tests.analysis.synthetic import make_result, write_points, write_run
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


def documented(command: str) -> Any:
    """The form of a command's JSON, as docs/verbs.md has it: nested mappings and lists; a name in capitals is any."""
    text = (Path(__file__).resolve().parents[1] / "docs" / "verbs.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{command}`[^|]* \| `([{{\[][^`]+)`", text, re.MULTILINE)
    assert row, command
    quoted = re.sub(r"(\w+)(?=[,}\]])", r'"\1": null', re.sub(r"(\w+):", r'"\1":', row[1]))
    quoted = re.sub(r': ("\w+"): null', r": \1", quoted)
    return yaml.safe_load(quoted)


def conforms(value: Any, form: Any) -> bool:
    """Whether a value has the documented keys, at every depth that the documentation goes into."""
    if isinstance(form, list):
        return isinstance(value, list) and all(conforms(one, form[0]) for one in value)
    if not isinstance(form, dict):
        return True
    if any(name.isupper() for name in form):
        inner = next(iter(form.values()))
        return isinstance(value, dict) and all(conforms(one, inner) for one in value.values())
    return isinstance(value, dict) and set(value) == set(form) and all(conforms(value[k], v) for k, v in form.items())


def told(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    """What a verb prints with ``json=true``, which is JSON and nothing else."""
    capsys.readouterr()
    assert commands.main([*words, "json=true"]) == code
    return json.loads(capsys.readouterr().out)


def every(verb: Command | Group, name: str) -> list[tuple[str, Command]]:
    """A verb's commands by their words."""
    if isinstance(verb, Command):
        return [(name, verb)]
    return [(f"{name} {inner}", command) for inner, command in verb.commands.items()]


def test_every_verb_prints_json_and_its_form_is_documented():
    for name, command in [pair for verb in commands.names() for pair in every(commands.load(verb), verb)]:
        assert command.keys["json"] == arguments.JSON, name
        if name not in ("export", "store show", "tracking ui"):  # in words
            assert documented(f"{name}(?: [A-Z][^`]*)?"), name


JUDGED = {
    "tables STUDY": ["figure=no", "metric=all"],
    "report STUDY": [],
    "claims STUDY": [],
    "compare STUDY a=... b=...": ["a=objective.name=kd", "b=objective.name=finetune"],
    "published STUDY": [],
    "reproduce STUDY": ["figure=no"],
}


def test_verbs_of_the_analysis_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """On one study that has claims and printed numbers: 2 objectives, 3 seeds."""
    pairs = [(objective, seed) for objective in ("kd", "finetune") for seed in (1, 2, 3)]
    results = [
        make_result("pea_kd", "rte", o, "first", s, science__student={"name": "half", "sharing": "none"})
        for o, s in pairs
    ]
    for result in results:
        write_run(tmp_path, result)
    write_points(tmp_path, "pea_kd", results)
    for command, more in JUDGED.items():
        value = told([command.split()[0], "pea_kd", f"root={tmp_path}", "source=folders", *more], capsys)
        assert conforms(value, documented(command)), (command, value)
        assert value["study"] == "pea_kd" and all(Path(path).is_file() for path in value["written"])
    tables = told(["tables", "pea_kd", f"root={tmp_path}", "source=folders", "figure=no"], capsys)["tables"]
    (cell,) = [c for c in tables[0]["cells"] if c["labels"]["objective"] == "kd" and c["task"] == "rte"]
    mean = 100 * sum(r["scores"]["validation"]["accuracy"] for r in results[:3]) / 3
    assert cell["mean"] == pytest.approx(mean) and cell["n"] == 3
    refused = commands.main(["chosen", "pea_kd", f"root={tmp_path}", "source=folders", "json=true"])
    assert refused == 2 and capsys.readouterr().out == ""


def test_other_verbs_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    store = f"store={tmp_path / 'store'}"
    assert conforms(told(["store", "verify", store], capsys), documented("store verify"))
    assert conforms(value := told(["store", "gc", store], capsys), documented("store gc")) and value["freed"] == 0
    (tmp_path / "studies").mkdir()
    synced = told(["tracking", "sync", f"root={tmp_path / 'studies'}"], capsys)
    assert conforms(synced, documented("tracking sync")) and synced["complete"] is True
    assert conforms(told(["plugins"], capsys), documented("plugins"))
    drawn = told(["simulate", "table=found", "repeats=2"], capsys)
    assert conforms(drawn, documented("simulate")) and set(drawn["tables"]) == {"found"}
    shown = told(["help"], capsys)
    assert set(shown["verbs"]) == set(commands.names()) and shown["choices"]["objective"]["kd"].startswith("Vanilla KD")
    assert set(shown["verbs"]["tables"]["keys"]["study"]) == {"help", "default", "values", "bare"}
    monkeypatch.setattr("os.execve", lambda *ignored: None)
    shows = sys.modules["kdexp.tracking.ui"]  # no store is made: tests of tracking make one
    monkeypatch.setattr(shows, "create", lambda uri: None)
    monkeypatch.setattr(shows.moved, "follow", lambda path: None)
    monkeypatch.setattr(shows.pages, "addresses", lambda server, path: [])
    assert told(["ui", f"root={tmp_path}", "port=50123"], capsys) == {"address": "http://127.0.0.1:50123"}


def test_help_is_about_verbs_and_groups(capsys: pytest.CaptureFixture[str]):
    assert commands.main(["help", "mapping"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("mapping=\n") and "Pairs of your own." in out and max(map(len, out.splitlines())) <= 80
    assert commands.main(["help", "tracking"]) == 0
    out = capsys.readouterr().out
    assert "tracking COMMAND" in out and "\ntracking=\n" in out, "a verb and a group"
    assert commands.main(["help", "mappin"]) == 2
    assert "Did you mean mapping?" in capsys.readouterr().err


def test_status_for_people_and_programs(study: Path, capsys: pytest.CaptureFixture[str]):
    assert commands.main(["status", "small", f"root={study}"]) == 1
    assert "2 runs: 1 finished, 1 new" in capsys.readouterr().out
    assert commands.main(["status", "study=small", f"root={study}", "json=true"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert conforms(told, documented("status STUDY"))
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
    assert conforms([*found.values()], documented("list"))
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
        assert conforms([row], documented("store list"))
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
    assert conforms(told, documented("vectors FILE"))
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
