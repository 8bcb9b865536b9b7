"""PTP through the public entry: a stage before the student's first, shared by all objectives."""

from __future__ import annotations

import pytest
import torch

from kdexp.inits import copying
from kdexp.inits.ptp import PTP
from kdexp.models.build import save
from tests.toys import network

PTP_WORDS = ("init=ptp", "init.t1=0.6", "init.t2=0.6", "init.epochs=2")


def test_the_encoder_goes_on_and_the_stage_is_shared(distil, store):
    first = distil(*PTP_WORDS, "objective=pkd", "mapping=pea_kd", "student=l2_sps2", "teacher.recipe.epochs=1")
    assert [s["name"] for s in first["stages"]] == ["teacher", "ptp", "distill.joint"]
    assert first["init"]["layers"] == [1, 2]
    assert first["init"]["random"] == 2  # the head
    assert first["mapping"]["patience"] == [[1, 1], [2, 2], [3, 3]]
    assert first["labels"] | {"student": "l2_sps2", "init": "ptp"} == first["labels"]
    second = distil(*PTP_WORDS, "objective=kd", "student=l2_sps2", "teacher.recipe.epochs=1")
    assert [s["reused"] for s in second["stages"]] == [True, True, False]
    summary = store()["ptp"][0]["summary"]
    assert sum(summary["classes"]["train"].values()) == first["task"]["rows"]["train"]
    assert sum(summary["classes"]["heldout"].values()) == first["task"]["rows"]["heldout"]
    assert summary["thresholds"] == [0.6, 0.6]
    assert summary["best"]["epoch"] in (0, 1)


@pytest.mark.slow
def test_other_selections_need_no_held_out_rows(distil, store):
    distil(*PTP_WORDS, "init.select=fixed_epochs", "objective=kd")
    assert set(store()["ptp"][0]["summary"]["classes"]) == {"train"}


def test_what_cannot_work_is_said_first(kdexp, arguments):
    scores = [
        "task.kind=regression",
        "task.label=score",
        "task.label_names=[]",
        "task.metrics=[pearson]",
        "task.metric=pearson",
    ]
    for words, told in (
        (scores, "init=ptp needs a distribution over classes"),
        (["init.select=best"], "heldout_train, fixed_epochs, legacy_dev"),
        (["init.t1=3"], "init.t1=3: must be at most 1"),
        (["data.heldout=0", "selection=last"], "init.select=fixed_epochs"),
    ):
        done = kdexp([*arguments, "init=ptp", *words])
        assert done.returncode == 2
        assert told in done.stderr


def test_a_teacher_that_is_always_right_needs_given_thresholds(kdexp, arguments):
    done = kdexp([*arguments, "init=ptp", "teacher.recipe.epochs=12", "teacher.recipe.learning_rate=3e-3"])
    assert done.returncode != 0
    assert "Give t1 and t2 as numbers" in done.stdout + done.stderr


def test_adopting_takes_all_but_the_head(tmp_path):
    source, student = network(2, 1), network(2, 2)
    save(source, tmp_path)
    head = student.classifier.weight.detach().clone()
    report = copying.adopt(student, tmp_path)
    assert report["random_names"] == ["classifier.weight", "classifier.bias"]
    assert torch.equal(student.bert.pooler.dense.weight, source.bert.pooler.dense.weight)
    assert torch.equal(student.classifier.weight, head)
    with pytest.raises(ValueError, match=r"has no weights for bert\.encoder\.layer\.2"):
        copying.adopt(network(3, 2), tmp_path)


def test_needs_the_fine_tuned_teacher_but_copies_the_pretrained_one():
    assert PTP().needs_teacher
    assert PTP().source == "pretrained"
