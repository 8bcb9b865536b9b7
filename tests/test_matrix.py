"""Every objective with every init on two architectures, on toy sizes, through the program's own functions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdexp.cli.main import CONFIG_PATH
from kdexp.common.problems import ConfigError
from kdexp.config import choices
from kdexp.models import vocabulary
from kdexp.run import execute, spec
from kdexp.train import evaluate
from tests.test_runs import toy
from tests.toys import network

OBJECTIVES = [
    name
    for name in choices.names(Path(CONFIG_PATH) / "objective")
    if not name.startswith(("agnostic_", "continual_", "embeddings")) and name not in ("review_maps", "teachers")
]
"""Those on raw text, on maps of images, on vectors and with more teachers have tests of their own (tests/methods)."""
ONE_FAMILY = {
    "assistant", "ensemble", "ikd",
    "aid", "band_mse", "cka", "dist", "distilbert", "dkd", "embed_distill", "gram", "hidden_cosine", "jsd", "ld",
    "logistic_ranking", "margin_mse", "multilabel_kl", "pfi", "pkt", "procrustes", "rank_mimic", "response",
    "reverse_kl", "rkd", "score_kl", "score_matching", "similarity_preserving", "srd", "temperature_kl",
    "total_variation", "unbiased",
}  # fmt: skip
"""They read logits and last hidden states alone, as kd and hid_seq do on every architecture."""
REFUSED = {"arriving": "needs three classes or more", "standard_kl": "has nothing to learn from 2 classes"}
"""Objectives that the toy task of two classes leaves nothing of."""
CELLS = [
    (objective, family)
    for objective in OBJECTIVES
    for family in ("bert", "roberta")
    if family == "bert" or not (objective in ONE_FAMILY or objective in REFUSED)
]
INITS = ["random", "first", "last", "spread", "layers"]


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_csv_task, compose):
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()

    def one(model: Path, *overrides: str) -> dict:
        given = [
            *toy(model, tiny_csv_task),
            "recipe.steps=2",
            "teacher.recipe.steps=2",
            "task.limit_train=32",
            *overrides,
        ]
        return execute.execute(spec.make(compose(*given)))

    return one


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """A store for all cells: they have one teacher a family."""
    return f"runtime.store={tmp_path_factory.mktemp('matrix')}"


@pytest.mark.parametrize(("objective", "family"), CELLS)
def test_objective(run, request, objective, family, store):
    model, words = request.getfixturevalue(f"tiny_{family}_dir"), [f"objective={objective}", store]
    if objective in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[objective]):
            run(model, *words)
        return
    result = run(model, *words, *EXTRA.get(objective, []))
    assert 0 <= result["scores"]["validation"]["accuracy"] <= 1
    assert result["cost"]["steps"] >= 2


def test_the_result_says_how_far_up_each_model_is_run(run, tiny_bert_dir):
    result = run(tiny_bert_dir, "objective=att_kl", "mapping=first", "runtime.teacher_cache=off")
    reach = result["runtime"]["reach"]
    assert reach["distill.intermediate"] == {
        "student": {"layers": 2, "whole": 1, "next": "query key"},
        "teacher": {"layers": 4, "whole": 1, "next": "query key"},
    }
    assert reach["distill.prediction"] == {
        "student": {"layers": 2, "whole": 1, "next": "first token"},
        "teacher": {"layers": 4, "whole": 3, "next": "first token"},
    }
    assert reach["teacher"] == {"student": {"layers": 4, "whole": 3, "next": "first token"}}


def test_what_selection_has_measured_is_not_measured_again(run, tiny_bert_dir, monkeypatch):
    sizes, predict = [], evaluate.predict
    monkeypatch.setattr(evaluate, "predict", lambda m, data, *more: sizes.append(len(data)) or predict(m, data, *more))
    once = run(tiny_bert_dir, "objective=kd", "study=once")
    heldout, validation = (once["task"]["rows"][name] for name in ("heldout", "validation"))
    assert sizes == [heldout] * 2 + [validation] + [heldout, validation], "the teacher selects twice, the student once"
    monkeypatch.setattr(evaluate, "stamp", lambda model: object())  # nothing is ever known
    twice = run(tiny_bert_dir, "objective=kd", "study=twice", "recipe.weight_decay=0.02")
    assert sizes[5:] == [heldout, heldout, validation] and twice["best"]["scores"] == twice["scores"]["heldout"]
    assert once["best"]["scores"] == once["scores"]["heldout"]


def test_weights_that_were_touched_are_measured_anew():
    model = network(1, 1)
    before = evaluate.stamp(model)
    assert before == evaluate.stamp(model) == evaluate.stamp(model.eval())
    with torch.no_grad():
        model.classifier.bias.add_(1.0)
    after = evaluate.stamp(model)
    model.load_state_dict(network(1, 2).state_dict())
    assert len({before, after, evaluate.stamp(model), evaluate.stamp(network(1, 1))}) == 4


def test_a_run_saves_the_whole_vocabulary(run, tiny_bert_dir, monkeypatch):
    """In float32, weights within 1e-5 and equal scores; the result says what was trained."""
    narrow = run(tiny_bert_dir, "objective=att_kl", "recipe.dropout=0", "study=narrow")
    monkeypatch.setattr(vocabulary, "narrow", lambda model, used: False)
    other = ["recipe.betas=[0.9,0.9990000001]", "teacher.recipe.betas=[0.9,0.9990000001]"]  # other stages' keys
    whole = run(tiny_bert_dir, "objective=att_kl", "recipe.dropout=0", "study=whole", *other)
    assert [s["vocabulary"] for s in whole["stages"]] == [None] * 3
    for stage in narrow["stages"]:
        assert stage["vocabulary"]["of"] == 131 and 20 < stage["vocabulary"]["used"] < 60
    mine, expected = (load_file(Path(r["student"]["weights"]) / "model.safetensors") for r in (narrow, whole))
    assert mine["bert.embeddings.word_embeddings.weight"].shape == (131, 32) and set(mine) == set(expected)
    for name in mine:
        torch.testing.assert_close(mine[name], expected[name], rtol=1e-4, atol=1e-5)
    assert narrow["scores"] == whole["scores"] and narrow["student"]["parameters"] == whole["student"]["parameters"]


EXTRA: dict[str, list[str]] = {
    "pro_kd": ["recipe.steps=null", "teacher.recipe.steps=null"],
    "unbiased": ["objective.prediction.unbiased.with_marginal=true"],
}


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("objective", ["finetune", "kd", "hid_seq", "att_kl"])
def test_init(run, tiny_bert_dir, objective, init, store):
    extra = ["init.chosen=[1,3]"] if init == "layers" else []
    result = run(tiny_bert_dir, f"objective={objective}", f"init={init}", store, *extra)
    expected = {"random": None, "first": [1, 2], "last": [3, 4], "spread": [2, 4], "layers": [1, 3]}[init]
    assert result["init"]["layers"] == expected


def test_regression(run, tiny_bert_dir):
    scores = [
        "task.kind=regression",
        "task.label=score",
        "task.label_names=[]",
        "task.metrics=[pearson,spearman]",
        "task.metric=pearson",
    ]
    for objective in ("finetune", "kd", "hid_seq"):
        result = run(tiny_bert_dir, *scores, f"objective={objective}")
        assert set(result["scores"]["validation"]) == {"pearson", "spearman"}
