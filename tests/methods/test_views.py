"""Two views of a text, assistants, several teachers: plans of stages around the objectives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kdexp.common.problems import ConfigError
from kdexp.methods.ensemble import combined
from kdexp.methods.ikd import Views
from kdexp.run import execute, spec
from tests.test_runs import toy
from tests.toys import examples


@pytest.fixture
def prepared(tmp_path, monkeypatch, tiny_csv_task, tiny_bert_dir, compose):
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()

    def one(*overrides: str):
        given = [*toy(tiny_bert_dir, tiny_csv_task), "recipe.steps=2", "teacher.recipe.steps=2", "task.limit_train=32"]
        return spec.make(compose(*given, *overrides))

    return one


def views(drop: float, mode: str = "mask") -> Views:
    return Views(examples(), drop, mode, special=[5, 6], pad=0, mask=49)


def test_both_views_of_every_example_stand_in_a_batch():
    batch = views(0.3).collate(np.array([4, 9, 2]), step_seed=10)
    ids, mask = batch.inputs["input_ids"], batch.mask
    assert len(batch) == 6 == len(ids) and batch.index.tolist() == [4, 9, 2, 4, 9, 2]
    clean, noisy = ids[:3], ids[3:]
    changed = clean != noisy
    assert changed.any() and (noisy[changed] == 49).all()
    assert not (changed & torch.isin(clean, torch.tensor([5, 6]))).any() and not (changed & ~mask[:3].bool()).any()
    torch.testing.assert_close(batch.labels["label"][:3], batch.labels["label"][3:])


def test_noise_is_a_function_of_step_and_example():
    data = views(0.3, "delete")
    first, again, other = (data.collate(np.array([4, 9]), step_seed=s).inputs["input_ids"] for s in (10, 10, 12))
    assert torch.equal(first, again) and not torch.equal(first, other)
    alone = data.collate(np.array([9]), step_seed=10, width=first.shape[1]).inputs["input_ids"]
    assert torch.equal(alone[1], first[3])
    batch = data.collate(np.array([4, 9]), step_seed=10)
    assert batch.mask[2:].sum() < batch.mask[:2].sum()
    assert (batch.inputs["input_ids"][batch.mask == 0] == 0).all()


def test_without_noise_both_views_are_one():
    assert torch.equal(*views(0.0).collate(np.arange(5), 3).inputs["input_ids"].chunk(2))


@pytest.mark.parametrize("extra", [["objective.views=teacher_clean"], ["objective.noise.mode=delete"]])
def test_runs_on_two_views(prepared, extra):
    result = execute.execute(prepared("objective=ikd", *extra))
    assert result["scores"]["validation"] and result["cost"]["steps"] >= 2


def test_a_chain_of_assistants(prepared):
    """Each link is a stage of its own size; the student hears the last one."""
    sizes = "objective.assistants=[{num_layers: 3}, {num_layers: 2}]"
    run = prepared("objective=assistant", sizes, "student.num_layers=1", "init=first")
    result = execute.execute(run)
    assert [s["name"] for s in result["stages"]] == ["teacher", "assistant.1", "assistant.2", "assistant.student"]
    depths = [json.loads(path.read_text())["num_hidden_layers"] for path in Path("multirun").rglob("config.json")]
    assert sorted(depths) == [1, 2, 3, 4]
    other = prepared("objective=assistant", "objective.assistants=[{num_layers: 2}]", "student.num_layers=1")
    assert other.outline[-1].key != run.outline[-1].key


def test_several_teachers(prepared):
    result = execute.execute(prepared("objective=ensemble", "objective.teachers.seeds=[1,2]"))
    names = [stage["name"] for stage in result["stages"]]
    assert names.count("teacher") == 2 and names[-1] == "ensemble.student"


def test_answers_of_several_teachers_are_combined():
    one, two = torch.tensor([[4.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 2.0], [0.0, 5.0]])
    labels = torch.tensor([0, 1])
    assert combined([one, two], None, "mean", None).tolist() == [[2.0, 1.0], [0.0, 3.0]]
    assert combined([one, two], None, "weighted", [3, 1]).tolist() == [[3.0, 0.5], [0.0, 2.0]]
    assert combined([one, two], labels, "best", None).tolist() == [[4.0, 0.0], [0.0, 5.0]]
    scores = combined([one[:, :1], two[:, :1]], torch.tensor([3.0, 1.0]), "best", None)
    assert scores.tolist() == [[4.0], [0.0]]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["objective=ikd", "recipe.accumulation=2"], "depends on who is in a batch"),
        (["objective=ikd", "objective.noise.drop=1"], "objective.noise.drop"),
        (["objective=assistant", "student.num_layers=3", "objective.assistants=[{num_layers: 2}]"], "4 -> 2 -> 3"),
        (["objective=ensemble", "objective.teachers.seeds=[1,1]"], "the same teacher stands there twice"),
        (["objective=ensemble", "objective.teachers.combine=weighted"], "weights and weighted go together"),
        (["objective=rkd", "recipe.accumulation=2"], "recipe.accumulation=1"),
        (["objective=kd", "objective.method=wid"], "method=wid lays no run out: use init=wid"),
        (["objective=kd", "init=wid", "init.head=true"], "init.head=true: the head that init=wid trains"),
        (["objective=kd", "init=wid", "init.pooler=false"], "init.pooler=false has no effect with init=wid"),
        (["objective=kd", "init=pca", "init.depth=middle", "init.calibration=3"], "(?s)init.depth.*init.calibration"),
        (["objective=dkd", "init=slice", "student.hidden_size=24"], "whole heads of 8"),
    ],
    ids=str,
)
def test_what_cannot_work_is_said_before_anything_is_loaded(prepared, words, told):
    with pytest.raises(ConfigError, match=told):
        prepared(*words)
    assert not Path("multirun").exists()


@pytest.mark.parametrize("init", ["slice", "importance", "pca", "svd", "wid"])
def test_narrow_students_run(prepared, init):
    sizes = ["student.hidden_size=16", "student.num_heads=2", "student.intermediate_size=24"]
    result = execute.execute(prepared("objective=cka", f"init={init}", "init.depth=last", *sizes))
    assert result["init"]["layers"] == [3, 4]
    assert init == "wid" or len(result["init"]["hidden"]) == 16
    assert ("wid" in [stage["name"] for stage in result["stages"]]) == (init == "wid")
    assert result["student"]["hidden_size"] == 16


def test_classes_that_arrive_in_steps(prepared, tiny_csv_task):
    """Old classes, then new ones alone: with the former self beside it less is forgotten than without."""
    for name in ("train", "validation"):
        path = tiny_csv_task / f"{name}.csv"
        head, *rows = path.read_text().splitlines()
        cut = [row.rsplit(",", 2) for row in rows]
        lines = [
            f"{text} {'early' if i // 2 % 2 else 'late'},{label}{i // 2 % 2},{s}"
            for i, (text, label, s) in enumerate(cut)
        ]
        path.write_text("\n".join([head, *lines]) + "\n")
    words = [
        "objective=arriving",
        "task.label_names=[bad0,good0,bad1,good1]",
        "recipe.steps=12",
        "task.limit_train=null",
    ]
    forgotten = {}
    for weight in ("0", "3"):
        result = execute.execute(prepared(*words, f"objective.prediction.response.weight={weight}", f"study=w{weight}"))
        scores = result["scores"]
        assert {"validation", "validation_old", "validation_new"} <= set(scores)
        stages = {stage["name"]: stage for stage in result["stages"]}
        assert {"arriving.old", "arriving.new"} <= set(stages)
        record = next(Path("multirun").rglob(f"*{stages['arriving.new']['key'][:12]}*/stage.json"), None)
        forgotten[weight] = scores["validation_old"]["accuracy"]
        assert record is None or "forgotten" in record.read_text()
    assert forgotten["3"] >= forgotten["0"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "needs three classes or more, and task=toy has 2"),
        (["task.label_names=[a,b,c]", "objective.old_classes=3"], "old_classes=3 of 3 classes: none would be new"),
    ],
    ids=["binary", "all old"],
)
def test_classes_cannot_arrive_where_there_are_too_few(prepared, words, told):
    with pytest.raises(ConfigError, match=told):
        prepared("objective=arriving", *words)
