"""Rows that nobody has labelled: what the teacher says of them is learned, never scored; a part of validation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kdexp.check import unused
from kdexp.common.problems import ConfigError
from kdexp.common.registry import build
from kdexp.config import identity
from kdexp.heads.batch import Batch
from kdexp.heads.multilabel import MultiLabel
from kdexp.heads.regression import Regression
from kdexp.heads.span import Span
from kdexp.run import execute, spec
from kdexp.tasks.base import Answered, Joined, Subset
from tests.conftest import sentence
from tests.tasks import squads, test_choices
from tests.test_runs import toy
from tests.toys import examples


def rows(numbers: range, flipped: bool = False) -> str:
    names = ("good", "bad") if flipped else ("bad", "good")
    return "\n".join(["text,label", *(f"{sentence(n, n % 2)},{names[n % 2]}" for n in numbers)]) + "\n"


@pytest.fixture(scope="module")
def taught(tmp_path_factory, tiny_bert_dir) -> Path:
    """A classifier that is right, as a folder."""
    from hydra import compose, initialize_config_dir

    from kdexp.cli import main
    from kdexp.sweep import plugins

    place = tmp_path_factory.mktemp("taught")
    (place / "train.csv").write_text(rows(range(200, 360)))
    (place / "validation.csv").write_text(rows(range(64, 96)))
    plugins.register()
    main.resolvers()
    words = [*toy(tiny_bert_dir, place), "student=l4", "init=first", "init.source=pretrained", "objective=finetune"]
    more = [
        "recipe.epochs=12",
        f"runtime.store={place}/store",
        "selection=last",
        "data.heldout=0",
        "runtime.keep_weights=final",
    ]
    with initialize_config_dir(main.CONFIG_PATH, version_base="1.3"), pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        result = execute.execute(spec.make(compose("config", overrides=[*words, *more])))
    assert result["scores"]["validation"]["accuracy"] == 1.0
    return Path(result["student"]["weights"])


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder with six labelled rows for training, and 400 whose label column is wrong throughout."""
    place = tmp_path / "few"
    place.mkdir()
    (place / "train.csv").write_text(rows(range(6)))
    (place / "validation.csv").write_text(rows(range(64, 96)))
    (place / "more.csv").write_text(rows(range(400, 800), flipped=True))
    return place


@pytest.fixture
def words(taught, few, monkeypatch, tmp_path) -> list[str]:
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()
    return [
        *toy(taught, few), "teacher.finetune=false", "init=random", "student=l1", "data.heldout=0", "selection=last",
        "recipe.batch_size=8", "recipe.epochs=4",
    ]  # fmt: skip


def test_a_student_learns_from_rows_that_a_right_teacher_labels(compose, words, few, tmp_path):
    """Hard and soft losses alike; the file's own labels, all of them wrong, are not looked at."""
    scores = {}
    for name, more in (("few", []), ("more", [f"task.unlabelled={few}/more.csv"])):
        run = spec.make(compose("objective=kd", "objective.prediction.kd.weight=0.5", *words, *more))
        result = execute.execute(run)
        scores[name] = result["scores"]["validation"]["accuracy"]
        log = (tmp_path / result["run"]["folder"] / "run.log").read_text() if name == "more" else ""
    assert scores["more"] == 1.0 and scores["few"] < 0.9, scores
    assert result["task"]["rows"] == {"train": 6, "validation": 32, "unlabelled": 400}
    assert [stage["name"] for stage in result["stages"]] == ["teacher", "teacher.labels", "distill.prediction"]
    assert "unlabelled has 400 rows" in log and "more.csv has the column label, which is not looked at" in log
    assert result["labels"]["task"] == "toy" and result["task"]["majority"]["validation"]["accuracy"] == 0.5


def test_texts_alone_are_scored_as_agreement(compose, words, few):
    more = ["task.folder=null", f"task.unlabelled={few}/more.csv", "data.heldout=0.1", "selection=heldout"]
    result = execute.execute(spec.make(compose("objective=kd", *words, *more)))
    assert result["labels"]["task"] == "toy_agreement" and "agreement with the teacher" in result["task"]["note"]
    assert result["teacher"]["scores"]["validation"]["accuracy"] == 1.0, "it agrees with itself"
    assert result["scores"]["validation"]["accuracy"] > 0.9
    assert result["task"]["rows"] == {"train": 324, "heldout": 36, "validation": 40}


def test_leaks_are_counted_and_the_content_is_in_the_keys(compose, words, few):
    (few / "more.csv").write_text(rows(range(60, 68)) + "a text of its own,\n")
    held = {sentence(n, n % 2) for n in range(64, 96)}
    count = sum(sentence(n, n % 2) in held for n in range(60, 68))
    run = spec.make(compose("objective=kd", *words, f"task.unlabelled={few}/more.csv"))
    task = build(run.config.task)
    lines = task.record(None, few / "cache")
    assert count >= 4 and "unlabelled has 9 rows" in " ".join(lines)
    assert any(f"{count} of the unlabelled rows are in validation too: no clean score" in line for line in lines), lines
    before = spec.facts(run.config)
    (few / "more.csv").write_text(rows(range(60, 70)))
    spec._FINGERPRINTS.clear()
    after = spec.facts(run.config)
    assert before.data == after.data and before.further != after.further


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["task.unlabelled=./nowhere"], "nowhere is neither a file nor a folder with"),
        (["task.unlabelled=more.csv", "data.root=null"], "lies below data.root, which is unset"),
        (["task.unlabelled=FEW/more.csv", "objective=lgtm"], "objective.method=lgtm learns from labelled rows only"),
        (["task.unlabelled=FEW/odd.csv"], "odd.csv has no column text"),
        (["task.unlabelled=FEW/empty.csv"], "empty.csv has no rows"),
        (["task.unlabelled=FEW/more.csv", "task.optional=[train]"], "and .*train.csv is there"),
        (["task.unlabelled=FEW/more.csv", "task.folder=null", "objective=finetune"], "hears no teacher, so nothing"),
        (["task.unlabelled=FEW/more.csv", "task.folder=null", "teacher.finetune=true"], "cannot be fine-tuned on them"),
        (["task.unlabelled=FEW/more.csv", "task.folder=null", "objective.start=fine_tuned"], "begins with labels"),
        (["task.folder=null"], "task.folder and task.hub are both null"),
        (["task.optional=[train]"], "task.files.train is needed"),
    ],
)
def test_what_cannot_work_is_said(compose, words, few, change, message):
    (few / "odd.csv").write_text("words\na b\n")
    (few / "empty.csv").write_text("text\n")
    with pytest.raises(ConfigError, match=message):
        spec.make(compose("objective=kd", *words, *(one.replace("FEW", str(few)) for one in change)))


def test_without_a_teacher_the_rows_have_no_effect_and_it_is_the_same_run(compose, words, few):
    plain = spec.make(compose("objective=finetune", *words))
    more = spec.make(compose("objective=finetune", *words, f"task.unlabelled={few}/more.csv"))
    assert more.id == plain.id and "learns from the labelled rows alone" in " ".join(more.notes)
    assert not plain.notes and plain.config.task["unlabelled"] is None
    assert unused.settled(more.config)[1] == []


def test_a_fine_tuned_start_is_shared_with_runs_that_have_no_such_rows(compose, words, few):
    start = ["objective=kd", "objective.start=fine_tuned", *words]
    both = [spec.make(compose(*start, *more)).outline for more in ([], [f"task.unlabelled={few}/more.csv"])]
    keys = [{stage.name: stage.settings.get("unlabelled") for stage in outline} for outline in both]
    assert keys[1] == {
        "teacher": None, "student.start": None, "teacher.labels": f"{few}/more.csv",
        "distill.prediction": f"{few}/more.csv",
    }  # fmt: skip
    assert set(keys[0]) == {"teacher", "student.start", "distill.prediction"}


def test_settings_that_came_later_are_not_in_the_identity_of_runs_without_them(compose, words):
    run = spec.make(compose("objective=kd", *words))
    assert not {"unlabelled", "limit_validation"} & run.science["task"].keys()
    part = spec.make(compose("objective=kd", *words, "task.limit_validation=8"))
    assert part.science["task"]["limit_validation"] == 8 and part.id != run.id
    assert identity.deciding({"a": None, "unlabelled": None}, ()) == {"a": None}


def test_a_part_of_validation_is_scored_and_the_name_says_so(compose, words):
    result = execute.execute(spec.make(compose("objective=finetune", *words, "task.limit_validation=8")))
    assert result["task"]["rows"]["validation"] == 8 and result["labels"]["task"] == "toy_partial"
    assert "scored on 8 rows" in result["task"]["note"]
    assert json.dumps(result["task"]["majority"]) == json.dumps({"validation": {"accuracy": 0.5, "f1_macro": 1 / 3}})


def test_joined_batches_are_those_of_both_parts():
    whole = examples(12)
    parts = [Subset(whole, np.arange(0, 7)), Subset(whole, np.arange(7, 12))]
    given = np.arange(5) % 3
    both = Joined(parts[0], Answered(parts[1], {"label": given}))
    index = np.array([8, 1, 11, 0])
    one, two = both.collate(index), whole.collate(index)
    for name, values in two.inputs.items():
        assert torch.equal(one.inputs[name], values)
    assert torch.equal(one.mask, two.mask) and one.index.tolist() == index.tolist()
    labels = [int(given[1]), int(whole.labels[1]), int(given[4]), int(whole.labels[0])]
    assert one.labels["label"].tolist() == labels and both.targets["label"][11] == given[4]
    assert len(both.truths["label"]) == 7 and np.array_equal(both.costs, whole.costs)


def test_what_answers_stand_for():
    batch = Batch({}, None, {}, torch.arange(2))
    logits = torch.tensor([[0.5, -1.0], [-0.1, 2.0]])
    assert MultiLabel(["a", "b"]).decided({"logits": logits}, batch)["label"].tolist() == [[1, 0], [0, 1]]
    assert Regression().decided({"logits": logits[:, :1]}, batch)["label"].tolist() == pytest.approx([0.5, -0.1])
    start, end = torch.zeros(2, 4), torch.zeros(2, 4)
    start[0, 2], end[0, 3], start[1, 0], end[1, 0] = 3.0, 3.0, 2.0, 2.0
    context = torch.tensor([[True, False, True, True]]).repeat(2, 1)
    asked = Batch({}, None, {"context": context, "null": torch.zeros(2, dtype=torch.long)}, torch.arange(2))
    found = Span().decided({"start_logits": start, "end_logits": end}, asked)
    assert found["start"].tolist() == [2, 0] and found["end"].tolist() == [3, 0]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("squad", ["objective=pro_kd", "task.stride=8"]),
        ("multiple_choice", ["objective=att_kl", "objective.schedule=joint"]),
    ],
)
def test_questions_are_learned_from_without_their_answers(
    compose, tiny_bert_dir, tiny_csv_task, tmp_path, monkeypatch, kind, more
):
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()
    place = tmp_path / "data"
    if kind == "squad":
        squads.folder(place, train=24, validation=8)
        further = [{k: v for k, v in squads.question(row).items() if k != "answers"} for row in range(100, 120)]
    else:
        test_choices.folder(place)
        further = [{k: v for k, v in test_choices.row(n).items() if k != "answer"} for n in range(100, 120)]
    (place / "further.jsonl").write_text("\n".join(map(json.dumps, further)))
    words = [w for w in toy(tiny_bert_dir, tiny_csv_task) if not w.startswith("task")]
    mine = [f"task={kind}", f"task.folder={place}", "task.name=toy", f"task.unlabelled={place}/further.jsonl"]
    mine += squads.words(place) if kind == "squad" else []
    short = ["recipe.epochs=1", "teacher.recipe.epochs=2"]
    result = execute.execute(spec.make(compose(*words, *mine, *short, *more)))
    names = [stage["name"] for stage in result["stages"]]
    assert "teacher.labels" in names and result["task"]["rows"]["unlabelled"] == 20
    both, batch = result["task"]["rows"]["train"] + 20, 16
    steps = {stage["name"]: stage["steps"] for stage in result["stages"] if stage["name"] not in ("teacher.labels",)}
    assert steps[names[-1]] == -(-both // batch), steps
