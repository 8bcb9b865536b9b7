"""What students answered: kept with every run, exactly the scores that it reports, whatever becomes of the weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.metrics import accuracy_score

from analysis import compare
from analysis.collect import collect
from kdexp.tasks.base import Goal
from kdexp.train import predictions
from tests.test_runs import results, toy


@pytest.fixture
def overrides(tiny_bert_dir: Path, tiny_csv_task: Path) -> list[str]:
    return [*toy(tiny_bert_dir, tiny_csv_task), "study=s"]


def test_every_run_keeps_what_its_student_answered(kdexp, overrides, tmp_path):
    grid = ["seed=1,2,3", "objective=kd,finetune", "runtime.keep_weights=none", "hydra.launcher.slots=1", "-m"]
    done = kdexp([*overrides, *grid], timeout=600)
    assert done.returncode == 0, done.stderr
    runs = results(tmp_path, "s")
    assert len(runs) == 6
    for result in runs.values():
        assert set(result["predictions"]) == set(result["scores"]) == {"validation", "heldout"}
        for split, sha256 in result["predictions"].items():
            path = tmp_path / result["run"]["folder"] / "predictions" / f"{split}.safetensors"
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
            kept = load_file(path)
            assert kept["ids"].tolist() == list(range(result["task"]["rows"][split]))
            assert kept["logits"].dtype == np.float16
            score = accuracy_score(kept["target.label"], kept["logits"].astype(np.float32).argmax(1))
            assert score == result["scores"][split]["accuracy"]
    one = next(iter(runs.values()))
    kept = load_file(tmp_path / one["run"]["folder"] / "predictions" / "validation.safetensors")
    rows = (tmp_path / "tiny_csv" / "validation.csv").read_text().splitlines()[1:]
    assert [["bad", "good"][label] for label in kept["target.label"]] == [row.split(",")[1] for row in rows]

    # the weights are gone, the record in the store has the predictions, and another run of the same student gets them
    records = [json.loads(p.read_text()) for p in (tmp_path / "multirun" / ".store").glob("*/meta.json")]
    students = [meta for meta in records if meta["name"] == "distill.prediction"]
    assert len(students) == 6
    assert all(set(meta["files"]) == {"predictions/heldout.safetensors", "predictions/validation.safetensors"}
               and "model.safetensors" in meta["dropped"] for meta in students)  # fmt: skip
    again = kdexp([*overrides, "study=t", "objective=kd", "seed=1", "runtime.keep_weights=none"])
    assert again.returncode == 0, again.stderr
    (other,) = results(tmp_path, "t").values()
    assert [stage["reused"] for stage in other["stages"]] == [True, True]
    same = next(r for r in runs.values() if r["run"]["id"] == other["run"]["id"])
    assert other["predictions"] == same["predictions"]
    assert (tmp_path / other["run"]["folder"] / "predictions" / "validation.safetensors").is_file()

    # three questions, three answers, from what the program wrote
    found = compare.compare(
        collect("s", tmp_path / "multirun", "folders"), {"objective.name": "kd"}, {"objective.name": "finetune"}
    )
    assert set(found.answers) == set(compare.QUESTIONS) and not found.missing

    # an answer that was changed is noticed
    path = tmp_path / same["run"]["folder"] / "predictions" / "validation.safetensors"
    kept = load_file(path)
    save_file({**kept, "logits": -kept["logits"]}, path)
    with pytest.raises(ValueError, match=r"its sha256 is not the one that the run's result\.json has"):
        compare.compare(
            collect("s", tmp_path / "multirun", "folders"), {"objective.name": "kd"}, {"objective.name": "finetune"}
        )


class Judge(Goal):
    """Counts answers whose largest logit is that of the label."""

    head = None

    def evaluate(self, answered, targets):
        chosen = [np.asarray(row, dtype=np.float32).argmax(-1) for row in answered["logits"]]
        right = [np.mean(c == np.asarray(t)) for c, t in zip(chosen, targets["label"], strict=True)]
        return {"accuracy": float(np.mean(right))}


@pytest.fixture
def judge() -> Goal:
    return Judge("judge")


def write(folder: Path, answers, targets, judge: Goal) -> None:
    predictions.write(folder, "validation", answers, targets, judge, judge.evaluate(answers, targets))


def test_full_precision_where_half_of_it_would_change_a_score(judge, tmp_path):
    close = np.array([[1.0, 1.0001], [2.0, -1.0]], dtype=np.float32)  # equal in half precision
    for labels, dtype in (([1, 0], np.float32), ([0, 0], np.float32)):
        write(tmp_path, {"logits": close}, {"label": np.array(labels)}, judge)
        assert load_file(tmp_path / "predictions" / "validation.safetensors")["logits"].dtype == dtype
    clear = np.array([[1.0, 1.5], [2.0, -1.0]], dtype=np.float32)
    write(tmp_path, {"logits": clear}, {"label": np.array([1, 0])}, judge)
    assert load_file(tmp_path / "predictions" / "validation.safetensors")["logits"].dtype == np.float16


def test_rows_of_different_lengths_and_labels_that_are_texts(judge, tmp_path):
    rows = [np.ones((2, 3), np.float32), np.zeros((4, 3), np.float32)]
    targets = {"label": [np.array([0, 0]), np.array([0, 1, 0, 0])], "text": ["a", "b"]}
    write(tmp_path, {"logits": rows}, targets, judge)
    kept = load_file(tmp_path / "predictions" / "validation.safetensors")
    assert set(kept) == {"logits", "logits.lengths", "target.label", "target.label.lengths", "ids"}
    assert kept["logits"].shape == (6, 3) and kept["logits.lengths"].tolist() == [2, 4]
    assert kept["target.label"].tolist() == [0, 0, 0, 1, 0, 0]


def test_answers_and_labels_of_one_name_are_kept_apart(judge, tmp_path):
    answers = {"logits": np.eye(2, dtype=np.float32), "label": np.ones(2)}
    write(tmp_path, answers, {"label": np.arange(2)}, judge)
    kept = load_file(tmp_path / "predictions" / "validation.safetensors")
    assert kept["label"].tolist() == [1, 1] and kept["target.label"].tolist() == [0, 1]
