"""Every objective with every init on two architectures, on toy sizes, through the program's own functions."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdexp.cli.main import CONFIG_PATH
from kdexp.config import choices
from kdexp.run import execute, spec
from tests.test_runs import toy

OBJECTIVES = choices.names(Path(CONFIG_PATH) / "objective")
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


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objective(run, request, objective, family):
    result = run(request.getfixturevalue(f"tiny_{family}_dir"), f"objective={objective}", *EXTRA.get(objective, []))
    assert 0 <= result["scores"]["validation"]["accuracy"] <= 1
    assert result["cost"]["steps"] >= 2


def test_the_result_says_how_far_up_each_model_is_run(run, tiny_bert_dir):
    reach = run(tiny_bert_dir, "objective=att_kl", "mapping=first")["runtime"]["reach"]
    assert reach["distill.intermediate"] == {
        "student": {"layers": 2, "whole": 1, "next": "query key"},
        "teacher": {"layers": 4, "whole": 1, "next": "query key"},
    }
    assert reach["distill.prediction"] == {"student": {"layers": 2, "whole": 1, "next": "first token"}}
    assert reach["teacher"] == {"student": {"layers": 4, "whole": 3, "next": "first token"}}


EXTRA: dict[str, list[str]] = {
    "pro_kd": ["recipe.steps=null", "teacher.recipe.steps=null"],
}


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("objective", ["finetune", "kd", "hid_seq", "att_kl"])
def test_init(run, tiny_bert_dir, objective, init):
    extra = ["init.chosen=[1,3]"] if init == "layers" else []
    result = run(tiny_bert_dir, f"objective={objective}", f"init={init}", *extra)
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
