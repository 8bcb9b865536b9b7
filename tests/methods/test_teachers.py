"""Several teachers of different architectures and vocabularies, combined by example."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdexp.common.problems import ConfigError
from kdexp.config import identity
from kdexp.methods import teachers
from kdexp.run import execute, spec
from tests.test_runs import toy


@pytest.fixture
def prepared(tmp_path, monkeypatch, tiny_csv_task, tiny_bert_dir, tiny_roberta_dir, compose):
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()

    def one(*overrides: str, second: bool = True) -> spec.RunSpec:
        given = [*toy(tiny_bert_dir, tiny_csv_task), "recipe.steps=2", "teacher.recipe.steps=8", "objective=teachers"]
        source = f"path:{tiny_roberta_dir}"
        if second:
            given += ["+teacher@objective.others.b=local", f"objective.others.b.source={source}"]
            given += ["objective.others.b.name=other", "objective.others.b.floor_margin=-1"]
        return spec.make(compose(*given, *overrides))

    return one


def test_teachers_with_tokenizers_of_their_own_answer_together(prepared, monkeypatch):
    """Each is a stage; what the student hears is the mean of what both have stored of the same examples."""
    heard = []

    def listen(phase):
        heard.append(together(phase))
        return heard[-1]

    together = teachers._together
    monkeypatch.setattr(teachers, "_together", listen)
    result = execute.execute(prepared())
    assert [stage["name"] for stage in result["stages"]] == ["teacher.b", "teacher", "teachers.student"]
    assert result["teacher"]["name"] == "tiny"
    folders = [next(Path("multirun/.store").glob(f"{stage['key']}*")) for stage in result["stages"][:2]]
    families = [json.loads((f / "config.json").read_text())["model_type"] for f in folders]
    assert families == ["roberta", "bert"]
    stored = [load_file(f / "train_features.32.safetensors")["feature.logits"] for f in folders]
    assert not torch.equal(*stored)
    torch.testing.assert_close(heard[0].features["logits"], (stored[0] + stored[1]) / 2)

    again = execute.execute(prepared("objective.combine=weighted", "objective.weights=[1,0]"))
    assert all(stage["reused"] for stage in again["stages"][:2])
    torch.testing.assert_close(heard[1].features["logits"], stored[1])


def test_each_teacher_must_pass_its_floor(prepared):
    with pytest.raises(ValueError, match=r"teacher other reaches accuracy .*floor_margin"):
        execute.execute(prepared("objective.others.b.floor_margin=0.9"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["objective.others.b.source=path:/no/such/folder"], r"objective.others.b, its own stage: .*/no/such/folder"),
        (["objective.others.b.seed=-1"], "objective.others.b.seed=-1"),
        (["+objective.others.b.sede=1"], "objective.others.b.sede"),
        (
            [
                "+teacher@objective.others.c=local",
                "objective.others.c.source=${objective.others.b.source}",
                "objective.others.c.name=third",
                "objective.others.c.floor_margin=-1",
            ],
            "others.c is the same teacher as",
        ),
        (["objective.combine=weighted", "objective.weights=[1,2,3]"], "one weight for each of the 2 teachers"),
        (["objective.combine=mean", "objective.weights=[1,2]"], "weights and weighted go together"),
        (["+objective/intermediate=hid_seq", "objective.schedule=joint"], "combines answers alone"),
        (["+objective/intermediate@objective.prediction=hid_seq"], "several teachers have answers in common"),
    ],
    ids=str,
)
def test_what_cannot_work_is_said_before_anything_is_loaded(prepared, words, told):
    with pytest.raises(ConfigError, match=told):
        prepared(*words)
    assert not Path("multirun").exists()


def test_one_teacher_is_none_too_many(prepared):
    with pytest.raises(ConfigError, match="objective.others is empty"):
        prepared(second=False)


def test_the_commit_that_another_teacher_was_read_at_is_no_part_of_what_a_run_is(prepared):
    run = prepared()
    told = run.config.model_dump()
    told["objective"]["others"]["b"]["commit"] = "0" * 40
    assert identity.science(told) == run.science
    told["objective"]["others"]["b"]["seed"] = 2
    assert identity.science(told) != run.science
