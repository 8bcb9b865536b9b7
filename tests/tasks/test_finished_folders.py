"""A student's folder is a whole model: transformers alone reads it, and it can be the next teacher."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdexp.common.problems import ConfigError
from kdexp.models import build as models
from kdexp.run.execute import execute
from kdexp.run.spec import make
from kdexp.tasks.labels import agreement, check_answers
from kdexp.train import evaluate
from kdexp.train.context import RunContext
from tests.conftest import RunProgram, program_environment, sentence
from tests.test_runs import toy

# A stranger's program: it knows transformers and the folder, no more.
STRANGER = """
import csv, json, sys
from transformers import pipeline
classify = pipeline("text-classification", model=sys.argv[1], truncation=True, top_k=None)
rows = list(csv.DictReader(open(sys.argv[2])))
answers = classify([{"text": row["first"], "text_pair": row["second"]} for row in rows], batch_size=1)
found = [{a["label"]: a["score"] for a in answer} for answer in answers]
print(json.dumps([found, [row["label"] for row in rows], "kdexp" in sys.modules]))
"""
LENGTH = 14


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two columns of texts, longer than what is read of them; the first one tells the label."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    for name, start, rows in (("train", 0, 96), ("validation", 96, 48)):
        lines = ["first,second,label"]
        for row in range(start, start + rows):
            first, label = sentence(row, row % 2), ["bad", "good"][row % 2]
            lines.append(f"{first},{sentence(row + 7, row // 2 % 2)} {'so very ' * (row % 3)},{label}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def overrides(teacher: Path, pairs: Path) -> list[str]:
    changed = ("task.columns", "recipe.max_length", "teacher.recipe.max_length", "teacher.recipe.epochs", "task.folder")
    kept = [text for text in toy(teacher, pairs) if not text.startswith(changed)]
    return [
        *kept, "task.columns=[first,second]", f"task.folder={pairs}", f"recipe.max_length={LENGTH}",
        f"teacher.recipe.max_length={LENGTH}", "teacher.recipe.epochs=25", "recipe.epochs=25",
    ]  # fmt: skip


def test_a_student_is_a_whole_model_and_the_next_teacher(
    tiny_bert_dir: Path, pairs: Path, tmp_path: Path, compose: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(teacher: Path, *more: str) -> dict[str, Any]:
        return execute(make(compose(*overrides(teacher, pairs), *more)))

    first = run(tiny_bert_dir, "study=first")
    student, teacher = Path(first["student"]["weights"]), tmp_path / "multirun" / ".store" / first["teacher"]["key"]
    score = first["scores"]["validation"]["accuracy"]
    assert score > 0.8 and first["task"]["truncated"]["validation"] > 0, first["scores"]
    for folder in (student, teacher):
        files = json.loads((folder / "meta.json").read_text())["files"]
        assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(files)
        assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}

    # By transformers alone, from a copy somewhere else.
    elsewhere = shutil.copytree(student, tmp_path / "elsewhere" / "model")
    answers, labels, knows_kdexp = by_a_stranger(elsewhere, pairs / "validation.csv")
    assert not knows_kdexp
    right = [max(answer, key=answer.get) == label for answer, label in zip(answers, labels, strict=True)]
    assert np.mean(right) == pytest.approx(score)
    spec = make(compose(*overrides(tiny_bert_dir, pairs)))
    context = RunContext(spec.config, torch.device("cpu"), "fp32", 1, tmp_path / "multirun" / ".store" / "cache")
    head = context.task().head
    built = models.build_student(spec.config.teacher, spec.config.student, head, None, 0)
    model = models.load_weights(built, student)
    logits = evaluate.predict(model, context.data(LENGTH)["validation"], head, context)["logits"]
    found = np.array([[answer["bad"], answer["good"]] for answer in answers])
    assert np.abs(found - torch.from_numpy(logits).softmax(-1).numpy()).max() < 1e-5

    # As the next teacher: the same score. Of its own student nothing is kept.
    smaller = ["student.num_layers=1", "teacher.finetune=false", "runtime.keep_weights=none"]
    second = run(student, *smaller, "study=second")
    assert second["teacher"]["scores"] == first["scores"] and second["student"]["weights"] is None
    log = (tmp_path / second["run"]["folder"] / "run.log").read_text()
    assert log.count("task toy: train has 96 rows: 'bad' 48, 'good' 48\n") == 1
    assert "teacher tiny answers as labelled: 'bad' " in log
    last = tmp_path / "multirun" / ".store" / second["stages"][-1]["key"]
    assert sorted(path.name for path in last.iterdir()) == ["meta.json", "predictions"]

    # Reading less of each text is another measurement, not the one that is in the store.
    short = run(student, *smaller, "teacher.recipe.max_length=8", "study=short")
    assert short["teacher"]["key"] != second["teacher"]["key"]

    # It reads no more than it was trained with, and no classes in another order.
    with pytest.raises(ConfigError, match=f"teacher=tiny can read {LENGTH} tokens"):
        run(student, *smaller, "recipe.max_length=32")
    with pytest.raises(ValueError, match=r"but \d+% if they are \['good', 'bad'\]. It would teach wrong classes"):
        run(exchanged(student, tmp_path / "turned"), *smaller, "study=third")


def by_a_stranger(model: Path, rows: Path) -> Any:
    """What :data:`STRANGER` prints, in a process of its own that cannot import kdexp."""
    command = [sys.executable, "-I", "-c", STRANGER, str(model), str(rows)]
    environment = program_environment({"PYTHONPATH": None})
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def exchanged(model: Path, folder: Path) -> Path:
    """A copy of a classifier whose two outputs are exchanged; their names are not."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    weights = load_file(model / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name].flip(0).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_everything_wrong_with_the_data_is_one_message_before_anything_is_loaded(
    kdexp: RunProgram, tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(tiny_bert_dir, tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    path = tiny_csv_task / "train.csv"
    path.write_text(path.read_text() + "one more sentence,ugly,4.0\n")
    done = kdexp([*toy(bare, tiny_csv_task), "student.num_layers=7"])
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "3 things must change" in done.stderr and "needs a teacher of at least 7 layers" in done.stderr
    assert "train.csv, line 66, row 64: label 'ugly' is neither" in done.stderr
    assert f"no tokenizer can be loaded from {bare}" in done.stderr
    assert not (tmp_path / "multirun").exists()


NAMES = ["entailment", "neutral", "contradiction"]


def answers_of(order: list[int], n: int, noise: float, labels: np.ndarray) -> np.ndarray:
    """What a classifier answers whose output i means class order[i], with a share of random answers."""
    rng = np.random.default_rng(n)
    return np.where(rng.random(n) < noise, rng.integers(0, len(order), n), np.argsort(order)[labels])


@pytest.mark.parametrize("order", [[2, 1, 0], [1, 2, 0], [1, 0, 2]])
@pytest.mark.parametrize(("n", "noise"), [(60, 0.1), (300, 0.3), (1000, 0.5)])
def test_another_order_of_classes_is_found_by_the_answers(order: list[int], n: int, noise: float) -> None:
    labels = np.random.default_rng(1).integers(0, 3, n)
    [said] = check_answers(answers_of(order, n, noise, labels), labels, NAMES)
    assert f"if they are {[NAMES[i] for i in order]}" in said
    assert check_answers(answers_of([0, 1, 2], n, noise, labels), labels, NAMES) == []


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_poor_teachers_are_not_taken_for_turned_ones(classes: int) -> None:
    """One answer for everything, chance, and few examples say nothing about the order."""
    names, rng = [str(i) for i in range(classes)], np.random.default_rng(0)
    skewed = (rng.random(400) < 0.7).astype(int)
    assert check_answers(np.zeros(400, dtype=int), skewed, names) == []
    for n in (5, 50, 1000):
        for _ in range(50):
            assert check_answers(rng.integers(0, classes, n), rng.integers(0, classes, n), names) == []
    assert check_answers(np.array([1, 0, 1]), np.array([0, 1, 0]), names) == []


def test_agreement_is_said_class_by_class() -> None:
    assert agreement(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]), ["bad", "good"]) == "'bad' 50%, 'good' 100%"
