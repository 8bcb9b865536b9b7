"""Parameters counted from a config.json are those of the model that transformers builds of it."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig

from kdexp.config.resolve import fill
from kdexp.config.schema import Student, Teacher
from kdexp.heads.classification import Classification
from kdexp.heads.regression import Regression
from kdexp.models import build, counting

HEADS = {"classes": Classification(["a", "b", "c"]), "score": Regression()}
ROBERTA = {"vocab_size": 211, "max_position_embeddings": 40, "type_vocab_size": 1, "pad_token_id": 1}
SIZES = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 40}
SAID = {
    "bert": {**SIZES, "vocab_size": 101, "max_position_embeddings": 30, "type_vocab_size": 2},
    "electra": {**SIZES, "vocab_size": 101, "max_position_embeddings": 30, "type_vocab_size": 2, "embedding_size": 12},
    "roberta": SIZES | ROBERTA,
    "xlm-roberta": SIZES | ROBERTA,
    "camembert": SIZES | ROBERTA,
}
STUDENTS = {
    "flat": {"num_layers": 2},
    "narrow": {"num_layers": 3, "hidden_size": 16, "num_heads": 2, "intermediate_size": 28},
    "shared": {"num_layers": 2, "sharing": "sps2"},
}


def teacher(family, folder, **changes):
    """A teacher whose folder holds a config.json, with the sizes that are read from it, and its student's."""
    (folder / "config.json").write_text(json.dumps({"model_type": family, **SAID[family], **changes}))
    filled = fill({"teacher": {"name": "t", "source": f"path:{folder}"}, "student": {}})
    return Teacher(**filled["teacher"]), filled["student"]


def built(teacher, head, student=None):
    with torch.device("meta"):
        if student is None:
            return build.parameters(build.build(build.configuration(teacher), head, teacher))
        return build.parameters(build.build_student(teacher, student, head, None, 0))


def test_every_counted_family_is_compared():
    assert SAID.keys() == counting.FAMILIES


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", SAID)
def test_what_is_counted_is_what_would_be_built(family, head, tmp_path):
    model, sizes = teacher(family, tmp_path)
    assert counting.count(json.loads((tmp_path / "config.json").read_text()), HEADS[head]) is not None
    assert build.count(model, HEADS[head]) == built(model, HEADS[head])
    for name, changes in STUDENTS.items():
        student = Student(name=name, **{**sizes, **changes})
        assert build.count(model, HEADS[head], student) == built(model, HEADS[head], student), name


def test_what_is_not_known_is_built(tmp_path):
    head = HEADS["classes"]
    said = {"model_type": "bert", **SAID["bert"]}
    assert counting.count(said, head) is not None
    for key in ("type_vocab_size", "max_position_embeddings", "hidden_size"):
        assert counting.count({k: v for k, v in said.items() if k != key}, head) is None
    assert counting.count({**said, "model_type": "modernbert"}, head) is None
    assert counting.count({**said, "is_decoder": True}, head) is None
    plain, _ = teacher("bert", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in said.items() if k != "type_vocab_size"}))
    assert AutoConfig.from_pretrained(tmp_path).type_vocab_size == 2
    assert build.count(plain, head) == counting.count(said, head)
