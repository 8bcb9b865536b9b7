"""Questions with several answers: rows, batches, the head, whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kdexp.common.problems import ConfigError
from kdexp.heads.choices import Choices
from kdexp.run import execute, spec
from kdexp.tasks.text import tokenizer
from kdexp.tasks.text.choices import ChoiceTask
from tests.conftest import BAD, GOOD
from tests.test_runs import toy


def row(number: int) -> dict:
    """The good word is right among three bad ones."""
    right = number % 4
    options = [BAD[(number + k) % len(BAD)] for k in range(4)]
    options[right] = GOOD[number % len(GOOD)]
    return {
        "article": f"the day was {number}",
        "question": "its light felt",
        "options": options,
        "answer": "ABCD"[right],
    }


def folder(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", range(64)), ("validation", range(64, 88))):
        (place / f"{split}.jsonl").write_text("\n".join(json.dumps(row(number)) for number in rows))
    return place


@pytest.fixture
def run(compose, tiny_bert_dir, tiny_csv_task, tmp_path, monkeypatch):
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()

    def one(*overrides: str) -> dict:
        words = [w for w in toy(tiny_bert_dir, tiny_csv_task) if not w.startswith("task")]
        mine = ["task=multiple_choice", f"task.folder={folder(tmp_path / 'race')}", "task.name=toy"]
        return execute.execute(spec.make(compose(*words, *mine, *overrides)))

    return one


def test_a_batch_is_cut_by_questions(tiny_bert_dir, tmp_path):
    files = {split: f"{split}.jsonl" for split in ("train", "validation")}
    task = ChoiceTask("toy", folder=str(folder(tmp_path)), files=files)
    rows = task.records(None, None)["train"]
    data = task.dataset(rows, *map(dict, task.encoded(tokenizer.load(tiny_bert_dir), 32, rows)))
    batch = data.collate(np.array([3, 0, 9, 5]))
    assert batch.inputs["input_ids"].shape[0] == batch.mask.shape[0] == 16 and len(batch) == 4
    assert batch.labels["label"].tolist() == [3, 0, 1, 1] and (data.costs <= 32).all()
    part = batch.part(slice(1, 3)).to(torch.device("cpu"))
    assert len(part) == 2 and torch.equal(part.inputs["input_ids"], batch.inputs["input_ids"][4:12])
    logits = torch.arange(8.0)[:, None]
    assert Choices(4).outputs(type("Output", (), {"logits": logits}))["logits"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_whole_contexts_are_held_out(tmp_path):
    rows = [{**row(number), "article": f"text {number // 4}"} for number in range(80)]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = {split: f"{split}.jsonl" for split in ("train", "validation")}
    cut = ChoiceTask("toy", folder=str(tmp_path), files=files).splits(None, 0.1)
    assert len(cut["heldout"]) == 8 and len(cut["train"]) == 72
    assert not set(cut["heldout"].contexts) & set(cut["train"].contexts)


def test_a_run_learns_which_answer_is_right(run):
    result = run("objective=kd", "teacher.recipe.epochs=8", "recipe.epochs=8")
    assert result["task"]["kind"] == "choices" and result["task"]["majority"]["validation"]["accuracy"] == 0.25
    assert result["scores"]["validation"]["accuracy"] > 0.6


@pytest.mark.parametrize("objective", ["att_kl", "hid_seq", "patience", "annealing", "pfi", "ikd"])
def test_objectives_see_texts_like_any_others(run, objective):
    more = ["recipe.accumulation=2"]
    if objective in ("annealing", "ikd"):
        more = ["objective.intermediate.annealing.tau_max=1"] if objective == "annealing" else []
    result = run(f"objective={objective}", "teacher.recipe.epochs=1", "recipe.epochs=1", *more)
    assert 0 <= result["scores"]["validation"]["accuracy"] <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "E"}, "'E' is neither one of A, B, C, D nor a number from 0 to 3"),
        ({"answer": None}, "None is neither"),
        ({"options": ["a", "b"]}, "is no list of task.choices=4 texts"),
        ({"article": None}, "None is no text"),
    ],
)
def test_rows_that_cannot_be_used_are_named(run, tmp_path, change, message):
    place = folder(tmp_path / "race")
    text = (place / "train.jsonl").read_text()
    (place / "bad.jsonl").write_text("\n".join([text, json.dumps({**row(0), **change})]))
    with pytest.raises(ConfigError, match=message):
        run("task.files.train=bad.jsonl")
    assert not (tmp_path / "multirun").exists()
