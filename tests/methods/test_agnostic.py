"""Distillation on raw text through the public entry: one stage, shared by all tasks; equal bits after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdexp.cli.main import CONFIG_PATH
from kdexp.config import choices
from kdexp.run import execute, spec
from tests.conftest import sentence

OBJECTIVES = [name for name in choices.names(Path(CONFIG_PATH) / "objective") if name.startswith("agnostic_")]


@pytest.fixture(scope="session")
def tiny_mlm_dir(tiny_bert_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with a head for hidden tokens, as it would be published."""
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("models") / "tiny_mlm"
    shutil.copytree(tiny_bert_dir, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForMaskedLM(BertConfig.from_pretrained(tiny_bert_dir)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of raw text."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = [". ".join([str(row), *(sentence(7 * row + k, k % 2) for k in range(6))]) for row in range(90)]
    (folder / "train.txt").write_text("\n\n".join(texts))
    return folder


@pytest.fixture
def alone(tiny_mlm_dir: Path, corpus: Path) -> list[str]:
    """Command-line words of a run on raw text."""
    return [
        "task=mlm", f"task.folder={corpus}", "task.validation_share=0.1", "task.limit_validation=8", "data.heldout=0.1",
        "teacher=local", f"teacher.source=path:{tiny_mlm_dir}", "teacher.recipe.max_length=24", "student=l2",
        "init=first", "init.source=pretrained", "init.pooler=false", "study=raw",
        "recipe=agnostic", "recipe.steps=4", "recipe.batch_size=8", "recipe.accumulation=2", "recipe.max_length=24",
        "runtime.compile=false", "runtime.device=cpu", "runtime.dtype=fp32", "runtime.progress=false",
        "runtime.log_every=1", "tracking=off",
    ]  # fmt: skip


@pytest.fixture
def before(tiny_mlm_dir: Path, corpus: Path, tiny_csv_task: Path) -> list[str]:
    """Command-line words of a run on a task, which starts from a student that was distilled on raw text."""
    return [
        "teacher=local", f"teacher.source=path:{tiny_mlm_dir}", "teacher.floor_margin=-1", "teacher.recipe.epochs=1",
        "task=local", f"task.folder={tiny_csv_task}", "task.label_names=[bad,good]", "student=l2", "study=tasks",
        "recipe.epochs=1", "recipe.batch_size=16", "recipe.max_length=24", "teacher.recipe.max_length=24",
        "init=agnostic", f"init.task.folder={corpus}", "init.task.validation_share=0.1", "init.task.limit_validation=8",
        "init.heldout=0.1", "init@init.start=first", "init.recipe.steps=4", "init.recipe.batch_size=8",
        "init.recipe.accumulation=2", "init.recipe.max_length=24", "runtime.compile=false", "runtime.device=cpu",
        "runtime.dtype=fp32", "runtime.progress=false", "runtime.log_every=1", "tracking=off",
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch, compose) -> Callable[..., dict]:
    """``run(*words)`` carries a run out in this process."""
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()
    return lambda *words: execute.execute(spec.make(compose(*words)))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_learns_from_text(run, alone, objective, tmp_path):
    result = run(*alone, f"objective={objective}")
    [stage] = result["stages"]
    assert stage["name"] == "agnostic" and stage["steps"] == 4
    note = json.loads((tmp_path / "multirun" / ".store" / stage["key"] / "meta.json").read_text())["summary"]
    reads = {"agnostic_mlm", "agnostic_kd", "agnostic_distilbert"}
    assert note["head"] == ("trained" if objective in reads else "random")
    assert set(note["heldout_terms"]) == {"heldout", "validation"}
    assert all(value > 0 for terms in note["heldout_terms"].values() for value in terms.values())
    assert set(note["agreement"] or {}) == ({"heldout", "validation"} if objective in reads else set())
    scored = {"accuracy", "log_likelihood", "mlm_loss", "perplexity"}
    assert {name: set(scores) for name, scores in result["scores"].items()} == (
        {"heldout": scored, "validation": scored} if objective in reads else {}
    ), "a random head is not scored"
    assert set(result["task"]["majority"]) == set(result["scores"])
    assert result["init"]["layers"] == [1, 2] and result["task"]["tokens"]["train"] > 1000
    reach = result["runtime"]["reach"]["agnostic"]
    if objective == "agnostic_att_mse":
        assert reach["teacher"] == {"layers": 4, "whole": 3, "next": "query key"}
        assert reach["student"] == {"layers": 2, "whole": 1, "next": "query key"}


def test_one_stage_serves_all_tasks_and_seeds(run, before, alone, tmp_path):
    first = run(*before, "objective=finetune")
    assert [s["name"] for s in first["stages"]] == ["agnostic", "distill.prediction"]
    assert first["labels"]["init"] == "agnostic_att_mse_first"
    assert first["init"]["layers"] == [1, 2] and first["init"]["random"] == 4  # pooler and head
    again = run(*before, "objective=finetune", "seed=2", "recipe.learning_rate=3e-4")
    other = run(*before, "objective=finetune", "task.name=scores", "task.kind=regression", "task.label=score",
                "task.label_names=[]", "task.metrics=[pearson]", "task.metric=pearson")  # fmt: skip
    taught = run(*before, "objective=hid_seq")
    for result in (again, other, taught):
        reused = {s["name"]: s["reused"] for s in result["stages"]}
        assert reused["agnostic"] and not reused["distill.prediction"]
    by_itself = run(*alone, "objective=agnostic_att_mse")
    assert by_itself["stages"][0]["key"] == first["stages"][0]["key"] and by_itself["stages"][0]["reused"]
    fresh = run(*before, "objective=finetune", "init.seed=2")
    assert not fresh["stages"][0]["reused"]
    start, student = (
        load_file(tmp_path / "multirun" / ".store" / s["key"] / "model.safetensors") for s in first["stages"]
    )
    assert set(start) - set(student) == {name for name in start if name.startswith("cls.")}


def test_what_is_started_from_is_what_was_distilled(run, before, tmp_path):
    """Fine-tuning at a rate of next to nothing leaves the encoder as the stage made it."""
    result = run(*before, "objective=finetune", "recipe.learning_rate=1e-12", "recipe.weight_decay=0")
    start, student = (
        load_file(tmp_path / "multirun" / ".store" / s["key"] / "model.safetensors") for s in result["stages"]
    )
    for name in student:
        if name in start:
            torch.testing.assert_close(student[name], start[name], rtol=0, atol=1e-9)
    assert len(set(start) & set(student)) > 30


def test_budgets_end_a_phase(run, alone, tmp_path):
    tokens = run(*alone, "objective=agnostic_mlm", "recipe.steps=null", "objective.budget.tokens=1000")
    assert tokens["stages"][0]["steps"] == 1000 // (8 * 24)
    hours = run(*alone, "objective=agnostic_mlm", "recipe.steps=null", "objective.budget.hours=0.0003")
    [stage] = hours["stages"]
    folder = tmp_path / "multirun" / ".store" / stage["key"]
    assert stage["steps"] == json.loads((folder / "budget.json").read_text())["steps"] > 3
    assert 0.2 < json.loads((folder / "meta.json").read_text())["summary"]["seconds"] < 10


def test_a_teacher_may_be_adapted_to_the_text_first(run, alone, tiny_bert_dir):
    words = [*alone, f"teacher.source=path:{tiny_bert_dir}", "objective=agnostic_kd", "objective.teacher=adapted"]
    words.append("teacher.floor_margin=-1")
    result = run(*words)
    assert [s["name"] for s in result["stages"]] == ["teacher", "agnostic"]
    assert result["teacher"]["scores"]["validation"]["mlm_loss"] > 0


def test_a_kill_costs_nothing_but_time(alone, begin, tmp_path):
    words = [*alone, "objective=agnostic_kd", "recipe.steps=24", "runtime.checkpoint_s=0"]

    def start(folder: Path) -> Any:
        folder.mkdir(exist_ok=True)
        return begin(words, cwd=folder)

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        [path] = folder.glob("multirun/.store/*/model.safetensors")
        return load_file(path)

    assert start(tmp_path / "calm").wait(240) == 0
    rough, kills = tmp_path / "rough", 0
    while True:
        process = start(rough)
        while process.poll() is None:
            time.sleep(0.02)
            done = [
                json.loads(p.read_text())["progress"]["step"]
                for p in rough.glob("multirun/.store/**/checkpoint/state.json")
            ]
            if kills < 2 and done and 3 * (kills + 1) <= done[0] < 20:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
        if process.wait(240) == 0:
            break
    assert kills == 2
    one, two = weights(tmp_path / "calm"), weights(rough)
    assert set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


# --- what cannot work ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_cannot_work_is_said_first(kdexp, alone, before, tiny_bert_dir, tmp_path):
    for given, words, told in (
        (
            alone,
            ["objective=agnostic_kd", f"teacher.source=path:{tiny_bert_dir}"],
            "was pretrained without a head for it",
        ),
        (alone, ["objective=agnostic_mlm", "init.source=finetuned"], "nobody fine-tunes a teacher on raw text"),
        (alone, ["objective=agnostic_mlm", "objective.budget.hours=2"], "recipe.steps=4: one of them ends the phase"),
        (alone, ["objective=agnostic_mlm", "objective.start=fine_tuned"], "raw text has no labels"),
        (alone, ["objective=agnostic_mlm", "objective/prediction=clkd"], "needs"),
        (alone, ["objective=agnostic_att_mse", "recipe.keep=best"], "so its answers are a random head's: use recipe"),
        (
            before,
            ["init.task.column=words", "init.task.files.train=*.csv"],
            "init=agnostic_att_mse_first, its own stage",
        ),
        (before, ["init.recipe.max_length=300"], "recipe.max_length=300, but teacher=local can read 128 tokens"),
        (before, ["init.recipe.batch_size=7"], "recipe.batch_size=7 is not a multiple of recipe.accumulation=2"),
        (before, ["init.recipe.learning_rate=fast"], "init.recipe.learning_rate='fast' has the wrong type"),
        (before, ["init.objective.budget.hours=-1"], "init.objective.budget.hours=-1: must be above 0"),
        (before, ["init.selection=best"], "init.selection=best is unknown"),
        (
            before,
            ["objective@init.objective=agnostic_kd", f"teacher.source=path:{tiny_bert_dir}"],
            "without a head for it",
        ),
    ):
        done = kdexp([*given, *words])
        assert done.returncode == 2, (words, done.stdout, done.stderr)
        assert told in done.stderr.replace("\n", " "), (words, done.stderr)
        assert "Traceback" not in done.stderr and not (tmp_path / "multirun").exists()


def test_smoke_makes_the_stage_of_an_init_small_too(compose):
    """Unless the command says otherwise; without it the recipe is the paper's."""
    from kdexp.config.resolve import resolve

    words = ["init=agnostic", "objective=finetune"]
    whole, small = resolve(compose(*words)), resolve(compose(*words, "init.recipe.steps=5", "+debug=smoke"))
    assert (whole["init"]["recipe"]["steps"], whole["init"]["task"]["limit_validation"]) == (100000, 2000)
    recipe, task = small["init"]["recipe"], small["init"]["task"]
    assert (recipe["steps"], recipe["batch_size"], recipe["accumulation"]) == (5, 8, 1)
    assert (task["limit_train"], task["limit_validation"], small["task"]["limit_validation"]) == (64, 64, 64)
    assert whole["init"]["task"]["limit_train"] is None and "debug" not in small
