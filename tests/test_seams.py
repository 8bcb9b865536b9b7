"""The seams of the data plane: roles of stages, abilities of heads, locations of tasks, what belongs to whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from kdexp.check import combinations
from kdexp.config.schema import Data, Student, Teacher
from kdexp.heads.base import unanswered
from kdexp.heads.classification import Classification
from kdexp.heads.regression import Regression
from kdexp.methods import distill
from kdexp.methods.base import Facts
from kdexp.objectives.clkd import CLKD
from kdexp.objectives.kd import KD
from kdexp.run import result, stages
from kdexp.store.stage import Stage
from kdexp.tasks.base import Relabelled, Subset
from kdexp.tasks.text.table import TextTask
from kdexp.train import evaluate
from kdexp.train.phase import Phase, Summary
from kdexp.train.teachers import CachedTeacher
from tests.toys import examples


def test_a_teacher_is_known_by_its_role_whatever_its_name(monkeypatch):
    stage = Stage("professor", "anywhere.make", {"a": 1}, role="teacher")
    assert stage.key == replace(stage, role="").key == replace(stage, name="teacher").key
    summary = {"scores": {}, "parameters": 1, "layers": 2}
    have = SimpleNamespace(summary=summary, whole=True)
    config: Any = SimpleNamespace(teacher=SimpleNamespace(name="t"))
    told = result._teacher(config, [(stage, have, False)], None)
    assert told is not None and told["key"] == stage.key

    heard: list[Any] = []
    monkeypatch.setattr(stages, "floor", lambda *given: heard.append(given[0]))
    run: Any = SimpleNamespace(task=lambda: None, config=config)
    stages.build([replace(stage, role="")], SimpleNamespace(seek=lambda key: have), run, True)
    assert heard == []
    stages.build([stage], SimpleNamespace(seek=lambda key: have), run, True)
    assert heard == [summary]


@dataclass
class Elsewhere(TextTask):
    """A task whose data are found by a setting of its own."""

    locations: ClassVar[tuple[str, ...]] = (*TextTask.locations, "url")
    url: str = ""


def test_a_tasks_own_locations_stay_out_of_keys(monkeypatch):
    monkeypatch.setenv("KDEXP_TARGETS", "tests.")
    task = {"_target_": "tests.test_seams.Elsewhere", "name": "x", "url": "somewhere", "folder": "here", "label": "y"}
    teacher = Teacher(name="t", source="path:nowhere")
    config: Any = SimpleNamespace(task=task, data=Data(), selection="last", teacher=teacher)
    kept = distill.common(config, Facts("d", "o", "fp32"))["task"]
    assert kept == {"_target_": "tests.test_seams.Elsewhere", "name": "x", "label": "y"}


def test_objectives_ask_heads_for_abilities():
    classes = Classification(["a", "b"])
    assert unanswered(CLKD.asks, classes) == unanswered(KD.asks, Regression()) == ""
    assert "a distribution over classes" in unanswered(CLKD.asks, Regression())


@pytest.mark.parametrize(("init", "refused"), [("ptp.PTP", False), ("first.First", False), ("last.Last", True)])
def test_layers_that_differ_in_kind_stay_in_their_places(init, refused):
    sizes = {"hidden_size": 8, "num_heads": 2, "intermediate_size": 16}
    config: Any = SimpleNamespace(
        init={"_target_": f"kdexp.inits.{init}", "name": "it", "source": "finetuned"},
        teacher=Teacher(name="t", source="path:nowhere", family="modernbert", num_layers=6, **sizes),
        student=Student(name="s", num_layers=3, **sizes), data=Data(), selection="heldout", task={"name": "x"},
    )  # fmt: skip
    found = combinations._init(config, Classification(["a", "b"]))
    assert bool(found) == refused, found
    assert not refused or "copies layers [4, 5, 6]" in found[0]


def test_subsets_and_new_labels_keep_inputs_and_ids_apart():
    whole = examples()
    part = Subset(whole, np.array([5, 2]))
    other = Relabelled(part, {"label": np.array([7, 8])})
    batch = other.collate(np.array([1, 0]), width=16)
    assert batch.labels["label"].tolist() == [8, 7] and batch.index.tolist() == [1, 0]
    assert torch.equal(batch.inputs["input_ids"], whole.collate(np.array([2, 5]), width=16).inputs["input_ids"])
    assert other.costs.tolist() == whole.costs[[5, 2]].tolist() and part.targets["label"].tolist() == [
        whole.labels[5],
        whole.labels[2],
    ]


def test_stored_answers_are_not_used_for_other_examples(tmp_path):
    whole = examples()
    config = SimpleNamespace(runtime=None, teacher=Teacher(name="t", source="path:nowhere"))
    context: Any = SimpleNamespace(config=config, task=lambda: None, data=lambda length, reader: {"train": whole})
    phase = Phase(Stage("odd", "x", {}), {}, tmp_path, context)
    student: Any = SimpleNamespace(step=SimpleNamespace(want=frozenset()))
    with pytest.raises(ValueError, match=r"stage odd: the teacher's stored answers belong to the task's own examples"):
        phase.train(student, CachedTeacher({}), {"train": Subset(whole, np.arange(3))})


def test_a_summary_holds_what_there_is():
    assert Summary(steps=3, best={}, more={"layers": [1]}).to_dict() == {"steps": 3, "best": {}, "layers": [1]}


def test_predictions_of_unequal_shapes_stay_a_list():
    equal, unequal = [np.zeros(2), np.ones(2)], [np.zeros(2), np.ones(3)]
    assert evaluate._joined(equal).shape == (2, 2)
    assert evaluate._joined(unequal) is unequal
