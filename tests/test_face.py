"""kdexp from Python: the command line's requests, results as objects, sentences as an exception."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import kdexp
from kdexp.cli import words
from kdexp.face import calls, spelling, studies
from kdexp.face.process import Answer
from tests.conftest import program_environment, sentence


def frame(rows: range) -> pd.DataFrame:
    labels = ["good" if row % 2 else "bad" for row in rows]
    return pd.DataFrame({"text": [sentence(row, row % 2) for row in rows], "label": labels})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- what needs no process -------------------------------------------------------------------------------------------


def test_import_is_light():
    code = "import kdexp, sys; print([m for m in sys.modules if m in ('torch', 'hydra', 'pandas', 'pydantic', 'yaml')])"
    code += "; kdexp.distill; print([m for m in sys.modules if m in ('torch', 'hydra', 'pandas', 'transformers')])"
    done = subprocess.run([sys.executable, "-c", code], env=program_environment({}), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")
    assert set(kdexp.__all__) <= set(dir(kdexp))
    with pytest.raises(AttributeError, match="no attribute 'destil'; it offers .*distill"):
        _ = kdexp.destil


TEXTS = [
    'a"b',
    "a\\",
    'a\\"b',
    "ü=1",
    "x,y",
    "it's",
    "",
    "1",
    "true",
    "NULL",
    "a:b",
    "[x]",
    "C:\\x\\",
    "~/a",
    "a b",
    "{a}",
]


@pytest.mark.parametrize("value", [*TEXTS, None, True, 3, 5e-5, [1, "2"], ["a b", None], [{"a": 'x"y'}], np.int64(3)])
def test_values_arrive_as_they_are(value: Any):
    (word,) = spelling.overrides({"recipe": {"key": value}})
    key, _, _ = word.partition("=")
    assert key == "recipe.key" and words._parsed(word).value() == value


def test_settings_become_the_words_that_people_type():
    given = {
        "student": "l3",
        "recipe": {"epochs": 3, "betas": (0.9, 0.99)},
        "data": {"root": Path("/data")},
        "dry": True,
    }
    assert spelling.overrides(given) == [
        "student=l3", "recipe.epochs=3", "recipe.betas=[0.9,0.99]", "data.root=/data", "dry=true",
    ]  # fmt: skip
    assert spelling.overrides({"seed": range(1, 3), "init": ["first", "last"]}, swept=True) == [
        "seed=1,2", "init=first,last",
    ]  # fmt: skip
    with pytest.raises(kdexp.ConfigError, match="recipe.epochs=<object"):
        spelling.overrides({"recipe": {"epochs": object()}})


def test_a_teacher_is_a_choice_a_folder_or_a_name_on_the_hub(here: Path):
    (here / "my bert").mkdir()
    said = {
        "minilm_l6": ["teacher=minilm_l6"],
        "my bert": ["teacher=local", 'teacher.source="path:my bert"'],
        "owner/name": ["teacher=hub", "teacher.source=hub:owner/name"],
        "hub:owner/name": ["teacher=hub", "teacher.source=hub:owner/name"],
        "package:some/model": ["teacher=local", "teacher.source=package:some/model"],
    }
    for teacher, expected in said.items():
        assert calls._teacher(teacher) == expected
    assert calls._teacher(here / "absent") == ["teacher=local", f"teacher.source=path:{here / 'absent'}"]
    with pytest.raises(kdexp.ConfigError, match="'mini_lm' is no folder here.*none of conf/teacher: .*minilm_l6"):
        calls._teacher("mini_lm")


def test_data_are_a_task_a_folder_or_frames(here: Path):
    (here / "mine").mkdir()
    assert calls._data("sst2", {}, None, None) == ["task=sst2"]
    assert calls._data("mine", {}, ["text"], ["a", "b"]) == [
        "task=local", "task.folder=./mine", "task.columns=[text]", "task.label_names=[a,b]",
    ]  # fmt: skip
    settings: dict[str, Any] = {"task": "tokens", "seed": 1}
    assert calls._data(here / "mine", settings, None, None) == ["task=tokens", f"task.folder={here / 'mine'}"]
    assert settings == {"seed": 1}
    frames = {"train": frame(range(4)), "validation": frame(range(4, 6))}
    first = calls._data(frames, {"task": {"name": "toy"}}, None, None)
    assert (
        first[0] == "task=local"
        and first[2] == "task.name=toy"
        and first[1].startswith("task.folder=./multirun/.frames/")
    )
    folder = here / first[1].partition("=")[2]
    assert pd.read_json(folder / "train.jsonl", lines=True).equals(frames["train"])
    again = calls._data({name: one.copy() for name, one in frames.items()}, {}, None, None)
    assert again[1] == first[1], "the same frames are the same run"
    frames["train"].loc[0, "label"] = "good"
    assert calls._data(frames, {}, None, None)[1] != first[1]
    (here / "one.csv").write_text("text,label\n")
    for data, sentence_ in (("one.csv", "is one file: put train and validation"), ("absent", "is no folder here")):
        with pytest.raises(kdexp.ConfigError, match=sentence_):
            calls._data(data, {}, None, None)
    for given, said in (
        ({**frames, "test": frame(range(4))}, "data has test, which no run reads: it reads train, validation"),
        ({**frames, "train": pd.concat([frame(range(4))] * 2, axis=1)}, "cannot be written as JSON lines .*unique"),
    ):
        with pytest.raises(kdexp.ConfigError, match=said):
            calls._data(given, {}, None, None)
    with pytest.raises(kdexp.ConfigError, match="a pandas DataFrame is needed"):
        calls._data({"train": [1]}, {}, None, None)  # type: ignore[dict-item]


def test_a_study_is_an_experiment_or_a_grid_of_ones_own(here: Path):
    assert kdexp.study("quickstart") == studies.Study("quickstart", ("+experiment=quickstart",))
    assert kdexp.study("quickstart", study="mine", seed=[1, 2]).name == "mine"
    mine = kdexp.study("mine", "recipe.epochs=1,2", data="sst2", init=["first", "last"])
    assert mine.words == ("-m", "study=mine", "task=sst2", "init=first,last", "recipe.epochs=1,2")
    assert "not started" in repr(mine)
    for name, words_, sentence_ in (
        ("a/b", (), "one folder name"),
        ("mine", ("study=other",), "called mine already"),
        ("pkd_tune", (), "say which"),
    ):  # fmt: skip
        with pytest.raises(kdexp.ConfigError, match=sentence_):
            kdexp.study(name, *words_)
    for call in (kdexp.study("absent").run, kdexp.study("absent").table, kdexp.study("absent").status):
        with pytest.raises(ValueError, match="absent"):
            call()


def test_a_run_has_one_value(here: Path):
    with pytest.raises(kdexp.ConfigError) as caught:
        kdexp.distill("-m", "+experiment=quickstart", seed=[1, 2])
    assert [problem.partition(": this is one run; kdexp.study")[0] for problem in caught.value.problems] == [
        "seed=[1, 2]", "-m", "+experiment=quickstart",
    ]  # fmt: skip


def test_what_cannot_be_asked_is_said_by_the_call(here: Path):
    for data, keys, said in (
        ({"text": ["good"]}, {}, "data is a dict: give a data frame"),
        (["good"], {}, "model=mine is no run and no exported form: say which task"),
        (["good"], {"task": "sst3"}, "task=sst3 is unknown. Did you mean sst2?"),
        (["good"], {"out": "a.csv"}, "out='a.csv': answers are returned here"),
        (pd.DataFrame({"text": ["good", 1]}), {}, "data is a data frame that Parquet does not hold"),
    ):
        with pytest.raises(kdexp.ConfigError, match=re.escape(said)):
            kdexp.predict("mine", data, **keys)


def test_what_fails_after_the_forms_is_not_nothing(here: Path, monkeypatch: pytest.MonkeyPatch):
    (here / "out").mkdir()
    pd.DataFrame({"model": ["student"], "form": ["pytorch"], "failed": [""]}).to_csv(here / "out" / "table.csv")
    answer = Answer(1, None, ["register=mails: MLflow does not take it"])
    words: list[str] = []
    monkeypatch.setattr(calls, "ask", lambda given, show: words.extend(given) or answer)
    with pytest.raises(RuntimeError, match="register=mails: MLflow does not take it"):
        kdexp.export("a=b", "out", register="mails")
    assert words == ["export", "model=a=b", "out=out", "register=mails"]


# --- the program itself ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bert_dir: Path) -> Iterator[dict[str, Any]]:
    """Arguments that every call shares; the current folder is a module's own, the data root nobody's."""
    before, folder, root = Path.cwd(), tmp_path_factory.mktemp("face"), os.environ.pop("KDEXP_DATA", None)
    os.chdir(folder)
    yield {
        "teacher": tiny_bert_dir,
        "data": {"train": frame(range(64)), "validation": frame(range(64, 96))},
        "labels": ["bad", "good"],
        "student": "l2",
        "recipe": {"epochs": 12, "batch_size": 16, "learning_rate": 5e-3, "max_length": 16},
        "tracking": "off",
    }
    os.chdir(before)
    if root is not None:
        os.environ["KDEXP_DATA"] = root


WORDS = ("teacher.floor_margin=-1", "teacher.recipe.epochs=2")


@pytest.fixture(scope="module")
def run(place: dict[str, Any]) -> kdexp.Run:
    """A run made as a notebook makes it: inside an event loop, beside a Hydra that somebody else has set up."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    async def cell() -> kdexp.Run:
        return kdexp.distill(*WORDS, show=False, **place)

    modules, handlers = set(sys.modules), signal.getsignal(signal.SIGINT)
    with initialize_config_dir(str(Path.cwd()), version_base="1.3"):
        theirs = GlobalHydra.instance().hydra
        made = asyncio.run(cell())
        assert GlobalHydra.instance().hydra is theirs and signal.getsignal(signal.SIGINT) is handlers
    assert not {name for name in set(sys.modules) - modules if name.startswith("kdexp.sweep.grid")}
    return made


def test_a_run_says_how_it_did_and_where_it_is(run: kdexp.Run):
    assert run.state == "finished" and run.score is not None and 0 <= run.score <= 1
    assert run.folder == Path.cwd() / "multirun" / "adhoc" / run.folder.name
    shown = repr(run)
    assert f"accuracy {run.score:.3f} on validation (teacher " in shown and str(run.folder) in shown
    assert run.student is not None and (run.student / "model.safetensors").is_file() and str(run.student) in shown


def test_predictions_are_rows_as_the_command_writes_them(run: kdexp.Run):
    rows = frame(range(100, 104)).drop(columns="label").set_index(pd.Index([7, 8, 9, 10]))
    rows["kind"], rows["count"] = pd.Categorical(list("abab")), pd.array([1, None, 2**53 + 1, 4], "Int64")
    answers = kdexp.predict(run, rows)
    assert list(answers) == ["text", "kind", "count", "prediction", "p(bad)", "p(good)"]
    pd.testing.assert_frame_equal(answers[["text", "kind", "count"]], rows)
    assert calls._rows(run.folder, rows["text"], None).equals(rows[["text"]].reset_index(drop=True))
    with pytest.raises(kdexp.ConfigError, match="3, which is no text"):
        kdexp.predict(run, ["a", 3])


def test_a_wrong_request_is_one_exception_with_all_sentences(
    run: kdexp.Run, place: dict[str, Any], capfd: pytest.CaptureFixture[str]
):
    before = sorted(Path("multirun").rglob("*"))
    with pytest.raises(kdexp.ConfigError) as caught:
        kdexp.distill(*WORDS, **{**place, "student": "l6", "labels": ["bad", "fine"]})
    depth, *labels = caught.value.problems
    assert depth.startswith("init=first with student.num_layers=6 needs a teacher of at least 6 layers (it has 4)")
    assert len(labels) == 2 and all("label 'good' is neither one of ['bad', 'fine']" in text for text in labels)
    with pytest.raises(kdexp.ConfigError, match="'frm' is no key"):
        kdexp.export(run, "out", frm=["onnx"])
    assert sorted(Path("multirun").rglob("*")) == before and not Path("out").exists()
    assert "must change" not in "".join(capfd.readouterr()), "said once, by the exception"


def test_a_study_becomes_tables(place: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    study = kdexp.study("mine", *WORDS, init=["first", "last"], seed=[1, 2], **place)
    study.run("hydra/launcher=basic")
    assert "4/4" in capsys.readouterr().out, "progress is shown"
    assert "4 finished" in repr(study) and study.status()["state"].tolist() == ["finished"] * 4
    runs = kdexp.load("mine")
    assert len(runs) == 4 and set(runs["init"]) == {"first", "last"} and runs["seed"].tolist() == [1, 2, 1, 2]
    for _, row in runs.iterrows():
        one = study[row["name"]]
        assert one.score == row["score"] == row[f"student.validation.{row['metric']}"]
    table = study.table().query("kind == 'method'").set_index("init")
    expected = 100 * runs.groupby("init")["score"].mean()
    assert table["mean"].to_dict() == pytest.approx(expected.to_dict()) and table["n"].tolist() == [2, 2]
    whole = kdexp.load("mine", settings=["recipe.learning_rate", "init.name"])
    assert whole["recipe.learning_rate"].tolist() == [5e-3] * 4 and whole["init.name"].tolist() == runs["init"].tolist()
    assert {"recipe.epochs", "objective.method"} <= set(kdexp.load("mine", settings="all"))
    with pytest.raises(ValueError, match="recipe.lr: no run of study mine has that"):
        kdexp.load("mine", settings="recipe.lr")
    (study[runs["name"][0]].folder / "result.json").unlink()
    with pytest.raises(ValueError, match="incomplete"):
        study.table()
    assert study.table(incomplete="allow")["n"].min() == 1
    assert kdexp.study("mine")._started_with() == [*study.words, "hydra/launcher=basic"]


SCRIPT = """
import kdexp, sys
kdexp.distill({words}, teacher={teacher!r}, data={folder!r}, labels=["bad", "good"], student="l2", tracking="off",
              recipe={{"epochs": {epochs}, "batch_size": 4, "max_length": 16}})
"""


@pytest.mark.slow
def test_a_stopped_call_saves_itself_and_the_same_call_continues(tmp_path: Path, tiny_bert_dir: Path):
    """Ctrl-C reaches the process that asked, alone; so does a kill, which the run notices."""
    (tmp_path / "data").mkdir()
    for name, rows in (("train", range(64)), ("validation", range(64, 96))):
        frame(rows).to_csv(tmp_path / "data" / f"{name}.csv", index=False)
    words_ = ", ".join(map(repr, [*WORDS, "runtime.log_every=1"]))
    script = SCRIPT.format(words=words_, teacher=str(tiny_bert_dir), folder="data", epochs=2000)
    for number in (signal.SIGINT, signal.SIGKILL):
        asked = subprocess.Popen(
            [sys.executable, "-c", script], cwd=tmp_path, env=program_environment({}), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert asked.stdout is not None
        for line in asked.stdout:
            if line.startswith("distill.prediction "):
                break
        os.kill(asked.pid, number)
        left = asked.stdout.read()
        assert asked.wait(60) in ((1, -signal.SIGINT) if number == signal.SIGINT else (-signal.SIGKILL,))
        assert number != signal.SIGINT or "KeyboardInterrupt" in left
        (folder,) = (tmp_path / "multirun" / "adhoc").iterdir()
        for _ in range(100):
            if kdexp.Run(folder).state == "interrupted":
                break
            time.sleep(0.2)
        assert kdexp.Run(folder).state == "interrupted" and "Run " in repr(kdexp.Run(folder))
        with pytest.raises(ValueError, match="the run is interrupted; the same call carries it out"):
            _ = kdexp.Run(folder).score
