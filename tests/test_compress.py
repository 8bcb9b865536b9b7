"""``+experiment=compress`` from a classifier's folder to a delivery: one real race, looked at from outside."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import sentence
from tests.test_predict import classifier

WORDS = [
    "+experiment=compress", "task.columns=[text]", "task.label_names=[bad,good]", "teacher.floor_margin=-1",
    "student=l2,l1", "init=first,last", "objective=kd", "seed=1,2", "recipe.epochs=1", "recipe.max_length=32",
    "data.heldout=0.3", "hydra.sweeper.deliver.forms=[onnx]", "hydra.sweeper.deliver.timed=false",
]  # fmt: skip


@pytest.fixture
def words(tiny_bert_dir: Path, tmp_path: Path, tiny_csv_task: Path) -> list[str]:
    folder = classifier(tiny_bert_dir, tmp_path / "model", 2)
    said = json.loads((folder / "config.json").read_text())
    said |= {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    (folder / "config.json").write_text(json.dumps(said))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA toy.\n")
    return [*WORDS, f"teacher.source=path:{folder}", f"task.folder={tiny_csv_task}"]


def test_from_a_classifier_to_files_that_run_without_kdexp(kdexp, words, tmp_path, monkeypatch):
    done = kdexp(words)
    assert done.returncode == 0, done.stdout + done.stderr
    study = tmp_path / "multirun" / "compress"
    chosen = {one["size"]: one for one in json.loads((study / "race.json").read_text())["chosen"]}
    assert set(chosen) == {"l1", "l2"} and sum(one["recommended"] for one in chosen.values()) == 1
    out = study / "delivery"
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["l1", "l2"]
    with (out / "table.csv").open() as file:
        rows = {(row["model"], row["form"]): row for row in csv.DictReader(file)}
    assert set(rows) == {(model, form) for model in ("l2", "l1", "teacher") for form in ("pytorch", "onnx")}
    for size, one in chosen.items():
        scored = json.loads((study / one["run"] / "result.json").read_text())["scores"]["validation"]["accuracy"]
        assert float(rows[size, "pytorch"]["score"]) == pytest.approx(scored), "as the run reported it"
        card = (out / size / "README.md").read_text()
        assert f"Run: {one['run']}" in card and "apache-2.0" in card and "+experiment=compress" in card
        assert (out / size / "pytorch" / "README.md").read_text() == card
    script = (
        "import sys, json; sys.modules['kdexp'] = None\nfrom transformers import pipeline\n"
        f"ask = pipeline('text-classification', model={str(out / 'l1' / 'pytorch')!r})\n"
        f"print(json.dumps([one['label'] for one in ask({[sentence(row, row % 2) for row in range(64, 96)]!r})]))"
    )
    answered = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    labels = json.loads(answered.stdout.splitlines()[-1])
    right = sum(label == ("good" if row % 2 else "bad") for row, label in zip(range(64, 96), labels, strict=True))
    assert right / 32 == pytest.approx(float(rows["l1", "pytorch"]["score"]))

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again = kdexp(words)
    assert again.returncode == 0 and "| l1 | onnx |" in again.stdout, again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}, "nothing is repeated"
    result = study / chosen["l1"]["run"] / "result.json"
    result.write_bytes(result.read_bytes()[:-40])  # half a disk's write
    other = kdexp([*words, "hydra.sweeper.deliver.forms=[]"])
    assert "result.json is damaged" in other.stderr and "set aside" in other.stderr, other.stderr
    assert {one["size"]: one for one in json.loads((study / "race.json").read_text())["chosen"]} == chosen
    assert other.returncode == 0 and (study / "delivery.1" / "l1" / "onnx").is_dir(), other.stderr
    assert not (out / "l1" / "onnx").exists() and "kept as delivery.1" in other.stderr


def test_what_a_delivery_lacks_is_said_before_anything_is_run(kdexp, words, tmp_path):
    done = kdexp([*words, "hydra.sweeper.deliver.forms=[onnx,tflite]"])
    assert done.returncode == 2 and "there is no form 'tflite'; there are pytorch, bf16, onnx" in done.stderr
    more = ["hydra.sweeper.tolerance=-1", "hydra.sweeper.deliver.threads=0"]
    done = kdexp([*words, "teacher.source=path:absent", *more])
    assert done.returncode == 2 and "absent" in done.stderr and "Traceback" not in done.stderr
    assert "3 things must change" in done.stderr, done.stderr
    assert all(word.removeprefix("hydra.") in done.stderr for word in more), done.stderr
    assert not (tmp_path / "multirun").exists()


def test_a_teacher_without_a_head_is_refused(kdexp, words, tiny_bert_dir, tmp_path):
    done = kdexp([*words, f"teacher.source=path:{tiny_bert_dir}", "dry=true"])
    assert done.returncode == 2 and "teacher.finetune" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_from_texts_that_nobody_has_labelled(kdexp, words, tiny_csv_task, tmp_path):
    rows = (tiny_csv_task / "train.csv").read_text().splitlines()[1:]
    (tmp_path / "texts.csv").write_text("\n".join(["text", *(row.split(",")[0] for row in rows)]) + "\n")
    mine = ["task.folder=null", f"task.unlabelled={tmp_path / 'texts.csv'}", "student=l1", "init=last", "seed=1"]
    done = kdexp([*words, *mine])
    assert done.returncode == 0, done.stdout + done.stderr
    study = tmp_path / "multirun" / "compress"
    (one,) = json.loads((study / "race.json").read_text())["chosen"]
    result = json.loads((study / one["run"] / "result.json").read_text())
    with (study / "delivery" / "table.csv").open() as file:
        scores = {(row["model"], row["form"]): float(row["score"]) for row in csv.DictReader(file)}
    assert scores["l1", "pytorch"] == pytest.approx(result["scores"]["validation"]["accuracy"])
    assert scores["teacher", "pytorch"] == 1.0, "it agrees with itself"
    assert "scores are agreement with the teacher" in (study / "delivery" / "table.md").read_text()
    assert "# local_agreement: " in (study / "delivery" / "l1" / "README.md").read_text()
    shutil.rmtree(study / "delivery")
    stage = Path(result["student"]["weights"]).parent / result["teacher"]["key"]
    (stage / "labels.validation.safetensors").unlink()
    done = kdexp(["export", str(study / one["run"]), f"out={tmp_path / 'out'}", "forms=onnx", "timed=false"])
    assert done.returncode == 2 and "has no labels to score against" in done.stderr, done.stdout + done.stderr
