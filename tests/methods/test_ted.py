"""TED through the public entry: stages, sharing between objectives, starts, filters that are really loaded."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from kdexp.objectives.base import Context, Shape
from kdexp.objectives.ted import TedMatch
from tests.toys import HEAD


def names(result: dict) -> list[str]:
    return [stage["name"] for stage in result["stages"]]


def test_all_stages_of_the_published_start(distil, store):
    result = distil("objective=ted")
    assert names(result) == ["teacher", "ted.teacher_filters", "student.start", "ted.student_filters", "ted.match"]
    assert result["labels"]["objective"] == "ted_ft"
    assert result["mapping"]["ted"] == [[1, 2], [2, 4]]
    stages = store()
    assert stages["ted.teacher_filters"][0]["summary"]["layers"] == [2, 4]
    assert stages["ted.student_filters"][0]["summary"]["layers"] == [1, 2]
    assert stages["ted.student_filters"][0]["summary"]["learned_parts"] == {
        f"{i}.linear.{part}": n for i in (0, 1) for part, n in (("weight", 32 * 32), ("bias", 32))
    }
    assert result["cost"]["steps"] > 0


def test_filters_do_not_depend_on_what_a_process_did_before(distil, tmp_path):
    """Trained beside a teacher that is fine-tuned in the same process, and beside one that is in the store."""
    distil("objective=ted")
    noted = {p.parent: json.loads(p.read_text())["name"] for p in tmp_path.glob("multirun/.store/*/meta.json")}
    (folder,) = [place for place, name in noted.items() if name == "ted.teacher_filters"]
    before = (folder / "filters.safetensors").read_bytes()
    shutil.rmtree(folder)
    for run in tmp_path.glob("multirun/*/*/result.json"):
        run.unlink()
    (match,) = [place for place, name in noted.items() if name == "ted.match"]
    shutil.rmtree(match)
    distil("objective=ted")
    assert (folder / "filters.safetensors").read_bytes() == before


def test_starts_cross_with_objectives_and_share_their_stages(distil, store):
    found = {}
    for objective in ("ted", "lwd", "kd"):
        for start in ("raw", "fine_tuned"):
            result = distil(f"objective={objective}", f"objective.start={start}")
            found[result["labels"]["objective"]] = names(result)
    assert found["ted"] == ["teacher", "ted.teacher_filters", "ted.student_filters", "ted.match"]
    assert found["lwd_ft"] == ["teacher", "student.start", "distill.joint"]
    assert found["kd_ft"] == ["teacher", "student.start", "distill.prediction"]
    assert found["kd"] == ["teacher", "distill.prediction"]
    counts = {name: len(stages) for name, stages in store().items()}
    assert counts == {
        "teacher": 1, "student.start": 1, "ted.teacher_filters": 1, "ted.student_filters": 2, "ted.match": 2,
        "distill.joint": 2, "distill.prediction": 2,
    }  # fmt: skip


@pytest.mark.slow
def test_filters_of_unequal_widths_nonlinear_on_scores(distil):
    sizes = ["student.hidden_size=16", "student.num_heads=2", "student.intermediate_size=32", "init=random"]
    scores = [
        "task.kind=regression",
        "task.label=score",
        "task.label_names=[]",
        "task.metrics=[pearson]",
        "task.metric=pearson",
    ]
    switches = [
        "objective.intermediate.ted.output=8",
        "objective.intermediate.ted.nonlinear=true",
        "objective.filters.backbone=train",
    ]
    result = distil("objective=ted", *sizes, *scores, *switches)
    assert names(result)[-1] == "ted.match"
    assert result["init"]["copied"] == 0


def test_a_plan_without_stage_one_is_refused():
    term = TedMatch()
    shape = Shape(num_layers=2, hidden_size=8, num_heads=2)
    term.setup(Context(student=shape, teacher=shape, pairs=[(1, 1)], head=HEAD, num_train=4, targets={}))
    with pytest.raises(ValueError, match=r"objective\.method=ted"):
        term.inherit({})


def test_filters_of_another_shape_are_refused(tmp_path):
    from safetensors.torch import save_file

    term, shape = TedMatch(), Shape(num_layers=2, hidden_size=8, num_heads=2)
    term.setup(Context(student=shape, teacher=shape, pairs=[(1, 1), (2, 2)], head=HEAD, num_train=4, targets={}))
    for role in ("student_filters", "teacher_filters"):
        (tmp_path / role).mkdir()
        save_file(
            {"0.linear.weight": torch.zeros(8, 8), "0.linear.bias": torch.zeros(8)},
            tmp_path / role / "filters.safetensors",
        )
    with pytest.raises(ValueError, match="do not fit stage II"):
        term.inherit({role: tmp_path / role for role in ("student_filters", "teacher_filters")})


def test_typing_errors_are_named(kdexp, arguments):
    for word, told in (
        ("objective.filters.backbone=evl", "choose one of: eval, train"),
        ("+objective.filters.epoch=3", "objective.filters.epoch is unknown"),
        ("objective.start=finetuned", "choose one of: raw, fine_tuned"),
        ("objective.schedule=two_phase", "use joint"),
    ):
        done = kdexp([*arguments, "objective=ted", word])
        assert done.returncode == 2
        assert told in done.stderr
