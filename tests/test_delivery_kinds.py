"""Students of every kind of task leave as graphs that answer and score as they do: run, exported, compared."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdexp.delivery import card, export, subject
from kdexp.delivery.forms import names
from kdexp.heads.base import Head
from kdexp.run import execute, spec
from tests import pictures
from tests.conftest import sentence
from tests.tasks import squads, test_choices, test_multilabel, test_tokens
from tests.test_runs import toy

FORMS = [name for name in names() if name != "openvino" or find_spec("openvino")]
SHORT = ["objective=finetune", "recipe.steps=4", "runtime.keep_weights=final"]


def texts(place: Path, kind: str) -> list[str]:
    """The words of a task of a kind, with its files."""
    if kind in ("squad", "squad_v2"):
        return squads.words(squads.folder(place, 32, 12, unanswerable=kind == "squad_v2"), kind)
    if kind == "tokens":
        return [f"task.folder={test_tokens.folder(place)}", f"task.label_names={test_tokens.NAMES}"]
    if kind == "multilabel":
        return [f"task.folder={test_multilabel.folder(place)}", f"task.label_names={test_multilabel.NAMES}"]
    if kind == "multiple_choice":
        return [f"task.folder={test_choices.folder(place)}"]
    place.mkdir()
    for name, rows in (("train", range(32)), ("validation", range(32, 56))):
        lines = [f"{sentence(row, row % 2)},{row % 5 + row % 2}" for row in rows]
        (place / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    more = ["task.kind=regression", "task.label_names=[]", "task.metrics=[pearson,spearman]", "task.metric=pearson"]
    return [f"task.folder={place}", "task.columns=[text]", *more]


KINDS = {
    "squad": "squad", "squad_v2": "squad_v2", "tokens": "tokens", "multilabel": "multilabel",
    "multiple_choice": "multiple_choice", "regression": "local",
}  # fmt: skip


def delivered(run: dict, tmp_path: Path) -> list[export.Row]:
    """Every form of a run's student, compared; each must have been made."""
    folder = tmp_path / run["run"]["folder"]
    (student, *_) = subject.of_run(folder, None, tmp_path / "multirun" / ".store" / "cache", {})
    rows = export.deliver([student], FORMS, tmp_path / "out", 1, False, say=lambda line: None)
    assert [row.form for row in rows] == FORMS and not [row.failed for row in rows if row.failed]
    metric = run["task"]["metric"]
    assert rows[0].score == pytest.approx(run["scores"]["validation"][metric], abs=1e-6), "as the run reported it"
    apart = {row.form: row.apart for row in rows}
    scale = max(apart["bf16"], 1e-3)
    assert apart["onnx"] < 1e-4 and 0 < apart["onnx_int8"] < 60 * scale, apart
    score = {row.form: row.score for row in rows}
    assert score["onnx"] == pytest.approx(score["pytorch"], abs=1e-4)
    opens(tmp_path / "out" / "pytorch", student.task.head)
    if "openvino" in apart:
        assert apart["openvino"] < 1e-3 and score["openvino"] == pytest.approx(score["pytorch"], abs=1e-3)
    return rows


def opens(folder: Path, head: Head) -> None:
    """The student's folder is one for transformers: its class reads all weights, and its pipeline answers."""
    import transformers

    kind = card.PIPELINES.get(head.auto_class)
    if kind is None:
        _model, said = getattr(transformers, head.auto_class).from_pretrained(folder, output_loading_info=True)
        assert not said["missing_keys"] and not said["unexpected_keys"], said
        return
    text = kind != "image-classification"
    asked = sentence(1, 0) if text else Image.fromarray(np.zeros((32, 32, 3), np.uint8))
    answered = transformers.pipeline(kind, model=str(folder))(asked)
    names = {one.get("label", one.get("entity")) for one in answered}
    known = set(head.label_names) or {"score", "LABEL_0"}  # of a single number: regression's, and that of one choice
    assert answered and names <= known, (names, known)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_about_texts(kind, compose, tiny_bert_dir, tiny_csv_task, tmp_path, monkeypatch):
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()
    words = [word for word in toy(tiny_bert_dir, tiny_csv_task) if not word.startswith("task")]
    mine = [f"task={KINDS[kind]}", "task.name=toy", *texts(tmp_path / "data", kind)]
    delivered(execute.execute(spec.make(compose(*words, *mine, *SHORT))), tmp_path)


def test_answers_about_images(compose, tmp_path, monkeypatch):
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()
    words = pictures.words(pictures.write(tmp_path / "pictures", 48, 24))
    delivered(execute.execute(spec.make(compose(*words, *SHORT))), tmp_path)
