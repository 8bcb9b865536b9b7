"""Teachers whose folders lack what a configuration asks for: said before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from kdexp.check.teacher import unreadable
from kdexp.common.registry import build
from kdexp.config import schema
from kdexp.config.resolve import resolve
from kdexp.config.schema import Config
from kdexp.inits import copying
from kdexp.inits.first import First
from kdexp.models import build as models
from kdexp.models import source as contents
from kdexp.train.context import RunContext
from tests.test_runs import toy


@pytest.fixture
def configured(tiny_csv_task, tmp_path, monkeypatch, compose):
    """Return the typed configuration of a toy run whose teacher is the model in a folder."""
    monkeypatch.chdir(tmp_path)

    def make(folder: Path, *more: str) -> Config:
        parsed, wrong = schema.parse(resolve(compose(*toy(folder, tiny_csv_task), *more)))
        assert parsed is not None, wrong
        return parsed

    return make


def without_pooler(whole: Path, folder: Path) -> Path:
    """Copy a model's folder and leave the pooler out, as published encoders often do."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(whole, folder)
    kept = {k: v for k, v in load_file(whole / "model.safetensors").items() if "pooler" not in k}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def change(folder: Path, file: str, **values: object) -> None:
    """Set keys of a JSON file; None removes one."""
    said = {**json.loads((folder / file).read_text()), **values}
    (folder / file).write_text(json.dumps({k: v for k, v in said.items() if v is not None}))


def test_a_pooler_that_is_not_there_is_not_copied(configured, tiny_bert_dir, tmp_path):
    pretrained = ["init.source=pretrained", "init.pooler=true"]
    assert unreadable(configured(tiny_bert_dir, *pretrained)) == []
    folder = without_pooler(tiny_bert_dir, tmp_path / "headless")
    config = configured(folder, *pretrained)
    (said,) = unreadable(config)
    assert "have no pooler" in said and "use init.pooler=false, or init.source=finetuned" in said
    for fine in (["init.source=finetuned"], ["init.source=pretrained", "init.pooler=false"], ["init=random"]):
        assert unreadable(configured(folder, *fine)) == []

    # A model of the hub is only seen when it is loaded.
    head = build(config.task).head
    teacher = models.load_pretrained(config.teacher, head)
    student = models.build_student(config.teacher, config.student, head, None, 1)
    with pytest.raises(ValueError, match=r"no pooler \(bert.pooler.dense.weight\), so the student would copy random"):
        copying.apply(First(name="first", source="pretrained"), student, teacher)
    report = copying.apply(First(name="first", source="pretrained", pooler=False), student, teacher)
    assert "bert.pooler.dense.weight" in report["random_names"]


def test_a_finished_classifier_without_its_head_is_refused(configured, tiny_bert_dir, tmp_path):
    folder = tmp_path / "classifier"
    shutil.copytree(tiny_bert_dir, folder)
    change(folder, "config.json", id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})
    config = configured(folder, "teacher.finetune=false")
    with pytest.raises(ValueError, match=r"no weights for classifier.bias, classifier.weight; it is incomplete"):
        models.load_teacher(config.teacher, build(config.task).head)
    models.load_teacher(config.teacher.model_copy(update={"finetune": True}), build(config.task).head)


@pytest.mark.parametrize("family", ["tiny_bert_dir", "tiny_roberta_dir"])
def test_texts_longer_than_the_positions_are_refused(family, configured, request, tmp_path):
    folder = tmp_path / "short"
    shutil.copytree(request.getfixturevalue(family), folder)
    change(folder, "tokenizer_config.json", model_max_length=None)
    config = configured(folder, "recipe.max_length=128")
    assert unreadable(config) == []
    config = configured(folder, "recipe.max_length=129", "teacher.recipe.max_length=200")
    said = " ".join(unreadable(config))
    assert "recipe.max_length=129, but teacher=tiny can read 128 tokens" in said
    assert "teacher.recipe.max_length=128 at most" in said
    context = RunContext(config, torch.device("cpu"), "fp32", 1, tmp_path / "cache", say=lambda line: None)
    assert len(context.data(128)["train"])
    with pytest.raises(ValueError, match="above the 128 tokens"):
        context.data(129)


def test_models_without_a_limit_are_left_alone():
    assert contents.positions({"model_type": "bert"}) is None
    assert contents.positions({"max_position_embeddings": 512, "position_biased_input": False}) is None
    assert contents.positions({"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": 1}) == 512
