"""Command lines as people type them: what is meant is understood or said, innocent words are never accused."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from kdexp.cli import errors, words
from kdexp.cli.main import CONFIG_PATH
from kdexp.common import arguments
from tests.conftest import RunProgram


@pytest.fixture(autouse=True)
def ready(registered: None):
    from kdexp.cli import main

    main.resolvers()


def said(*line: str) -> list[str]:
    """What is wrong with the words of a command line, before Hydra reads them."""
    return words.problems(*words.ordered(list(line)))


def composed(*line: str) -> list[str]:
    """What is wrong with those of a command line that cannot be composed."""
    return errors.composition_problems(list(line), CONFIG_PATH)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["a=1", "-m", "b=2"], (["-m"], ["a=1", "b=2"])),
        (["-m", "a=1"], (["-m"], ["a=1"])),
        (["a=1", "--config-dir", "x", "b=2"], (["--config-dir", "x"], ["a=1", "b=2"])),
        (["--config-dir=x", "b=2", "--multirun"], (["--config-dir=x", "--multirun"], ["b=2"])),
        (["--cfg", "job", "a=1"], (["--cfg", "job"], ["a=1"])),
        (["--info", "a=1"], (["--info=all"], ["a=1"])),
        (["--info", "config", "a=1"], (["--info", "config"], ["a=1"])),
        (["experiment=quickstart", "a=1"], ([], ["+experiment=quickstart", "a=1"])),
        (["debug=smoke", "+experiment=x"], ([], ["+experiment=x", "+debug=smoke"])),
        (["++experiment=x"], ([], ["+experiment=x"])),
    ],
)
def test_flags_may_stand_anywhere(line: list[str], expected: tuple[list[str], list[str]]):
    assert words.ordered(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["--dry-run"], "--dry-run is no option: settings are key=value words, such as dry=true."),
        (["--seed=3"], "--seed=3 is no option: settings are key=value words, such as seed=3."),
        (["--learning-rate=1e-4"], "such as learning_rate=1e-4."),
        (["dry=true", "quickstart"], "an experiment is chosen by +experiment=quickstart"),
        (["seed=1", "quick"], "'quick' is no key=value word."),
        (["hydra.run.dir=/x"], "choose study=NAME"),
        (["hydra.sweep.dir=/x"], "choose study=NAME"),
        (["hydra.sweep.subdir=x"], "choose study=NAME"),
        (["++hydra.run.dir=/x"], "choose study=NAME"),
        (["hydra.job.name=x"], "Choose study=NAME"),
        (["hydra.job.config.override_dirname.kv_sep=x"], "has no effect"),
        (["hydra.job.chdir=true"], "kdexp stays in the folder where it is started"),
        (["hydra/launcher=joblib"], "hydra/launcher=local hydra.launcher.slots=N"),
        (["hydra/launcher=submitit_local"], "hydra/launcher=submitit hydra.launcher.executor=local"),
        (["hydra/launcher=submitit_slurm"], "parameters={slurm_partition: gpu}"),
        (["-m", "hydra/sweeper=basic"], "hydra/sweeper=grid"),
        (["-m", "hydra/sweeper=ax"], "hydra/sweeper=optuna hydra.sweeper.sampler=gp"),
        (["-m", "+hydra/sweeper=nevergrad"], "hydra/sweeper=optuna hydra.sweeper.sampler=cmaes"),
        (["-m", "hydra/sweeper/sampler=tpe"], "here it is hydra.sweeper.sampler=tpe"),
        (["--config-dir", "nowhere"], "--config-dir nowhere: there is no folder"),
        (["seed=1", "--config-dir"], "--config-dir needs a folder."),
        (["hydra.searchpath=[file:///nowhere]"], "there is no folder /nowhere"),
        (["hydra.searchpath=lab"], "hydra.searchpath=[./lab]"),
        (["--config-path", "lab"], "--config-dir lab adds yours"),
        (["--config-name", "quickstart"], "an experiment is chosen by +experiment=quickstart"),
        (["--hydra-help"], "--cfg hydra"),
        (["task.folder=/tmp/a=b"], "'task.folder=\"/tmp/a=b\"'"),
        (["task.folder=/tmp/Größe"], "'task.folder=\"/tmp/Größe\"'"),
        (["tracking.uri=http://[::1"], "'tracking.uri=\"http://[::1\"'"),
        (["=3"], "cannot be read: a setting is key=value"),
        (["objective.prediction={}"], "~objective.prediction.NAME"),
        (["objective=5"], "objective=5: choose one of: agnostic_att_kl"),
        (["teacher=null"], "teacher=null: choose one of: bert_base"),
        (["task=true"], "task=true: choose one of:"),
        (["objective=[kd]"], "objective=[kd]: choose one of: agnostic_att_kl"),
        (["objective=[kd,hid_seq]"], "objective=[kd,hid_seq]: choose one of: agnostic_att_kl"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_hydra_would_ignore_or_misread_is_one_sentence(line: list[str], expected: str):
    (sentence,) = said(*line)
    assert expected in sentence


def test_what_works_is_left_alone(tmp_path: Path):
    fine = [
        "seed=1,2", "+experiment=quickstart", "~tracking", "hydra.job.chdir=False", "hydra.output_subdir=null",
        "hydra/launcher=local",
        "hydra.launcher.slots=2", f"hydra.searchpath=[file://{tmp_path}]", "task.folder='/tmp/a=b'", "init=glob(*)",
        "objective/intermediate=[att_kl,hid_seq]", "recipe={epochs: 9}", "+recipe.extra={}", "data.root=null",
        "recipe.learning_rate=interval(1e-5,1e-3)", "study=größe" if sys.platform == "none" else "study=a",
    ]  # fmt: skip
    assert said("-m", "--config-dir", str(tmp_path), *fine) == []
    assert said("--multi", "seed=1,2") == []  # as argparse completes it


def test_a_quoted_value_is_taken_as_it_is():
    for value in ("/tmp/a=b", "/tmp/Größe", "a,b", 'say "hi"', "[x"):
        override = words._parsed(words.as_one_text("task.folder", value))
        assert override.value() == value and not override.is_sweep_override()


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("recipe.lr=1e-3", "Did you mean recipe.learning_rate?"),
        ("lr=1e-3", "Did you mean recipe.learning_rate?"),
        ("recipe.bs=8", "Did you mean recipe.batch_size?"),
        ("bs=8", "Did you mean recipe.batch_size?"),
        ("epochs=3", "Did you mean recipe.epochs?"),
        ("objective.epohcs.prediction=3", "Did you mean objective.epochs.prediction?"),
        ("teacher.recipe.lr=1", "Did you mean teacher.recipe.learning_rate?"),
        ("teacher.epochs=3", "Did you mean teacher.recipe.epochs?"),
        ("objective.temperature=4", "Did you mean objective.prediction.kd.temperature?"),
        ("student.layers=4", "Did you mean student.num_layers?"),
        ("hydra.launcher.n_jobs=4", "Did you mean hydra.launcher.slots?"),
        ("+experiment=quickstrat", "Did you mean +experiment=quickstart?"),
        ("experiment=quickstrat", "Did you mean +experiment=quickstart?"),
        ("objective=kdd", "Did you mean objective=kd?"),
    ],
)
def test_suggestions_help(line: str, hint: str):
    (sentence,) = composed(line)
    assert hint in sentence


@pytest.mark.parametrize(
    ("line", "accused"),
    [
        (["task=local", "task.folder=/x", "recipe.epoch=2"], ["recipe.epoch=2"]),
        (["objective=pkd", "objective.intermediate.patience.weight=10", "recipe.epoch=2"], ["recipe.epoch=2"]),
        (["debug=smoke", "recipe.epoch=2"], ["recipe.epoch=2"]),
        (["recipe.epoch=2", "recipe.epoch=3", "recipe.epoch=4"], ["recipe.epoch=2"]),
        (["task=locall", "task.folder=/x", "recipe.epohcs=1"], ["task=locall", "recipe.epohcs=1"]),
        (["+experiment=mine", "objective.intermediate.patience.weight=10"], ["+experiment=mine"]),
        (["objective=kd,nothing", "objective.prediction.kd.alpha=1"], ["objective=nothing"]),
        (["seed=1", "init=first"], []),
    ],
)
def test_innocent_words_are_never_accused(line: list[str], accused: list[str]):
    assert [sentence.partition(": ")[0] for sentence in composed(*line)] == accused


@pytest.mark.parametrize("way", ["--config-dir", "hydra.searchpath"])
def test_further_folders_are_looked_into(tmp_path: Path, way: str):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 3\n")
    where = ["--config-dir", str(tmp_path)] if way == "--config-dir" else [f"hydra.searchpath=[file://{tmp_path}]"]
    assert [s.partition(": ")[0] for s in composed("+experiment=mine", *where, "recipe.epoch=1")] == ["recipe.epoch=1"]
    (sentence,) = composed("+experiment=mien", *where)
    assert "Did you mean +experiment=mine?" in sentence
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nrecipe: {epochs: [\n")
    (sentence,) = composed("+experiment=mine", *where, "seed=1")
    assert sentence.startswith("+experiment=mine: ") and "there is no mine" not in sentence


def test_files_that_would_never_be_read_are_named(tmp_path: Path):
    """Hydra looks into kdexp's own folder first: a file of the same name would be passed over without a word."""
    for name in ("quickstart", "mine"):
        (tmp_path / "experiment").mkdir(exist_ok=True)
        (tmp_path / "experiment" / f"{name}.yaml").write_text("# @package _global_\nseed: 3\n")
    for way in (["--config-dir", str(tmp_path)], [f"hydra.searchpath=[{tmp_path}]"]):
        (sentence,) = said(*way)
        assert "experiment/quickstart.yaml would never be read" in sentence and "mine" not in sentence.split(": ")[1]
    same = Path(CONFIG_PATH, "experiment", "quickstart.yaml").read_bytes()
    (tmp_path / "experiment" / "quickstart.yaml").write_bytes(same)
    assert said("--config-dir", str(tmp_path)) == []
    (sentence,) = said("--config-dir", str(tmp_path), "mine")
    assert "an experiment is chosen by +experiment=mine" in sentence


def test_several_values_without_m():
    (sentence,) = words.ambiguous(["init=first,last", "seed=1"])
    assert sentence == "init=first,last lists several values: add -m to run each of them (python -m kdexp -m ...)."
    (sentence,) = words.ambiguous(["task.columns=a,b"])
    assert "a list is written task.columns=[a,b]" in sentence and "'task.columns=\"a,b\"'" in sentence


def test_signs_that_a_terminal_lacks_are_replaced(monkeypatch: pytest.MonkeyPatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    with pytest.raises(UnicodeEncodeError):
        print("81.0 ± 0.5", file=out, flush=True)
    arguments.carry_out("p", arguments.Command("c", lambda: print("81.0 ± 0.5", flush=True) or 0), [])
    assert b"81.0 ? 0.5" in out.buffer.getvalue()  # type: ignore[attr-defined]


# --- the program itself --------------------------------------------------------------------------------------------


def test_the_program_says_it_in_one_message_without_a_traceback(kdexp: RunProgram, tmp_path: Path):
    done = kdexp(["init=first,last", "--dry-run", "hydra.run.dir=x"], env={"HYDRA_FULL_ERROR": None})
    assert done.returncode == 2 and done.stderr.startswith("2 things must change")
    assert kdexp(["init=first,last"]).stderr.count("add -m to run each of them") == 1
    asked = kdexp(["init=first,last", "seed=one", "recipe.epoch=3"], env={"HYDRA_FULL_ERROR": "1"})
    assert asked.returncode == 2 and "Traceback" in asked.stderr  # the user wants to see it
    lone = kdexp(["task=pydocs_kind", "hydra.launcher.slots=0", "hydra/sweeper=optuna", "hydra/launcher=submitit"])
    assert lone.returncode == 2 and lone.stderr.startswith("3 things must change"), lone.stderr
    assert "hydra.launcher.slots=0 has no effect: a single run" in lone.stderr and "Add -m" in lone.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_kdexps(kdexp: RunProgram):
    done = kdexp(["--version"])
    assert done.returncode == 0 and done.stdout.startswith("kdexp 0.") and "Hydra 1.3" in done.stdout


def test_a_laboratorys_own_experiments(kdexp: RunProgram, tmp_path: Path):
    (tmp_path / "lab" / "experiment").mkdir(parents=True)
    text = "# @package _global_\nstudy: mine\nhydra: {mode: MULTIRUN, sweeper: {params: {init: 'first,last'}}}\n"
    (tmp_path / "lab" / "experiment" / "mine.yaml").write_text(text)
    done = kdexp(["experiment=mine", "dry=true", "--config-dir", "lab"])
    assert done.returncode == 0 and "study mine: 2 runs" in done.stdout, done.stderr
    done = kdexp(["++experiment=mine", "hydra.searchpath=[lab]", "experiment=quickstart", "hydra/launcher=joblib"])
    assert done.returncode == 2 and done.stderr.startswith("2 things must change")
    assert "experiment is said 2 times (mine, quickstart)" in done.stderr and "slots=N" in done.stderr


def test_flags_after_words_and_an_experiment_without_a_plus(kdexp: RunProgram):
    done = kdexp(["experiment=quickstart", "-m", "dry=true"], env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "study quickstart: " in done.stdout, done.stderr
    assert "distilling_helps (" in done.stdout, "what the study can see is said before it is run"


def test_a_word_alone_that_is_an_experiment(kdexp: RunProgram):
    done = kdexp(["quickstart"])
    assert done.returncode == 2 and "no verb but an experiment: python -m kdexp +experiment=quickstart." in done.stderr


def test_info_is_told_once(kdexp: RunProgram):
    done = kdexp(["--info", "searchpath"])
    assert done.returncode == 0 and (done.stdout + done.stderr).count("| Provider") == 1
