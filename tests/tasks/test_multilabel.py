"""Texts with several labels: rows, the sigmoid's golden values, scores, a whole run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from kdexp.common.problems import ConfigError
from kdexp.heads.batch import Batch
from kdexp.heads.multilabel import MultiLabel, sigmoid_kl
from kdexp.run import execute, spec
from kdexp.tasks.text.multilabel import MultiLabelTask
from tests.conftest import BAD, GOOD, sentence
from tests.test_runs import toy

NAMES = ["good", "bad", "first"]


def row(number: int) -> tuple[str, str]:
    text = sentence(number, number % 2) if number % 3 else f"{sentence(number, 0)} {sentence(number, 1)}"
    words = set(text.split())
    labels = [name for name, told in (("good", GOOD), ("bad", BAD)) if words & set(told)]
    return text, ";".join(labels + (["first"] if text.startswith("the") else []))


def folder(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", range(80)), ("validation", range(80, 104))):
        lines = [",".join(row(number)) for number in rows]
        (place / f"{split}.csv").write_text("\n".join(["text,labels", *lines]) + "\n")
    return place


def test_the_divergence_of_each_label_by_hand():
    """p = 3/4 and 1/2 against q = 1/2 and 1/4: two distributions over yes and no each, nothing between labels."""
    student = torch.tensor([[0.0, -math.log(3)]])
    teacher = torch.tensor([[math.log(3), 0.0]])
    one = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    two = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert sigmoid_kl(student, teacher, reduction="sum").item() == pytest.approx(one + two, abs=1e-6)
    assert sigmoid_kl(student, teacher).item() == pytest.approx((one + two) / 2, abs=1e-6)
    assert sigmoid_kl(student, teacher, reduction="mean").item() == pytest.approx((one + two) / 4, abs=1e-6)
    soft = -(0.75 * math.log(0.5) + 0.25 * math.log(0.5) + 0.5 * math.log(0.25) + 0.5 * math.log(0.75))
    assert sigmoid_kl(student, teacher, form="soft_ce", reduction="sum").item() == pytest.approx(soft, abs=1e-6)
    at_two = sigmoid_kl(2 * student, 2 * teacher, 2.0, reduction="sum")
    assert at_two.item() == pytest.approx(4 * (one + two), abs=1e-5)
    assert sigmoid_kl(teacher, teacher).item() == pytest.approx(0, abs=1e-7)
    shifted = sigmoid_kl(student + 5, teacher + 5).item()
    assert shifted != pytest.approx((one + two) / 2, rel=0.01), "a softmax would not see the shift"
    grad = torch.zeros(1, 2, requires_grad=True)
    sigmoid_kl(grad, torch.tensor([[80.0, -80.0]]), reduction="sum").backward()
    assert grad.grad.tolist() == [[pytest.approx(-0.5), pytest.approx(0.5)]]


def test_the_hard_loss_is_binary_cross_entropy():
    head = MultiLabel(NAMES)
    batch = Batch({}, None, {"label": torch.tensor([[1.0, 0.0, 1.0]])}, torch.arange(1))
    logits = torch.tensor([[0.0, math.log(3), -math.log(3)]])
    wanted = -(math.log(0.5) + math.log(0.25) + math.log(0.25))
    assert head.loss({"logits": logits}, batch, "sum").item() == pytest.approx(wanted, abs=1e-6)
    assert head.loss({"logits": logits}, batch).item() == pytest.approx(wanted / 3, abs=1e-6)


def made(place: Path, **settings) -> MultiLabelTask:
    files = {split: f"{split}.csv" for split in ("train", "validation")}
    more = {"metrics": ["f1_micro", "f1_macro", "subset_accuracy"], "metric": "f1_micro", **settings}
    return MultiLabelTask(
        "toy", label_names=NAMES, columns=["text"], label="labels", folder=str(place), files=files, **more
    )


def test_scores_by_hand(tmp_path):
    """Labels: (1,1,0), (0,1,0); given (1,0,0), (0,1,1): hits 2, given 3, there 3."""
    task = made(folder(tmp_path))
    right, given = np.array([[1, 1, 0], [0, 1, 0]]), np.array([[1.0, -1, -1], [-1, 2, 0.5]])
    scores = task.evaluate({"logits": given}, {"label": right})
    assert scores == pytest.approx({"f1_micro": 2 / 3, "f1_macro": (1 + 2 / 3 + 0) / 3, "subset_accuracy": 0.0})
    shares = task.contributions({"logits": given}, {"label": right})
    assert {name: values.mean() for name, values in shares.items()} == pytest.approx(scores)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,labels\nthe day,good;sad\n", "label 'sad' is none of"),
        ("text,labels\nthe day,good|bad\n", "label 'good|bad' is none of .* have ';' between them"),
        ("text,labels\nthe day,good;good\n", "a label stands there twice"),
        ("text,labels\nthe day,\nit was,\n", "have no label at all: nothing can be learned"),
        ("text,labels\nthe day,good\nit was,good\n", "all have the same labels: nothing can be learned"),
    ],
)
def test_rows_that_cannot_be_used_are_named(compose, tiny_bert_dir, tiny_csv_task, tmp_path, text, message):
    place = folder(tmp_path / "mails")
    (place / "train.csv").write_text(text)
    words = [w for w in toy(tiny_bert_dir, tiny_csv_task) if not w.startswith("task")]
    mine = ["task=multilabel", f"task.folder={place}", f"task.label_names={NAMES}", "data.heldout=0.5"]
    with pytest.raises(ConfigError, match=message.replace("|", r"\|")):
        spec.make(compose(*words, *mine))


@pytest.mark.parametrize("objective", ["kd", "att_kl", "ted", "multilabel_kl"])
def test_a_run(compose, tiny_bert_dir, tiny_csv_task, tmp_path, monkeypatch, objective):
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()
    words = [w for w in toy(tiny_bert_dir, tiny_csv_task) if not w.startswith("task")]
    mine = ["task=multilabel", f"task.folder={folder(tmp_path / 'mails')}", f"task.label_names={NAMES}"]
    more = (
        ["teacher.recipe.epochs=24", "recipe.epochs=24"]
        if objective == "kd"
        else ["recipe.steps=2", "teacher.recipe.steps=2"]
    )
    result = execute.execute(spec.make(compose(f"objective={objective}", *words, *mine, *more)))
    assert result["task"]["kind"] == "multilabel"
    if objective == "kd":
        majority = result["task"]["majority"]["validation"]["f1_micro"]
        assert result["scores"]["validation"]["f1_micro"] > max(majority, 0.75)
        kept = load_file(tmp_path / result["run"]["folder"] / "predictions" / "validation.safetensors")
        assert kept["by_example.f1_micro"].mean() == pytest.approx(result["scores"]["validation"]["f1_micro"])


def test_objectives_on_classes_are_refused(compose, tiny_bert_dir, tiny_csv_task, tmp_path):
    words = [w for w in toy(tiny_bert_dir, tiny_csv_task) if not w.startswith("task")]
    mine = ["task=multilabel", f"task.folder={folder(tmp_path / 'mails')}", f"task.label_names={NAMES}"]
    with pytest.raises(ConfigError, match="clkd needs a distribution over classes"):
        spec.make(compose("objective=clkd", *words, *mine))
    with pytest.raises(ConfigError, match="combine=best takes the teacher nearest .* head multilabel"):
        spec.make(compose("objective=ensemble", "objective.teachers.combine=best", *words, *mine))
