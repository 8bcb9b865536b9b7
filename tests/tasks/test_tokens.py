"""A tag for every word: rows, pieces, entities, the head, whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from kdexp.common.problems import ConfigError
from kdexp.heads.batch import Batch
from kdexp.heads.tokens import Tokens
from kdexp.run import execute, spec
from kdexp.tasks.text import entities, sentences, tokenizer
from kdexp.tasks.text.tokens import TokenTask
from tests.conftest import BAD, GOOD, sentence
from tests.test_runs import toy

NAMES = ["O", "B-G", "I-G", "B-B"]


def tagged(row: int) -> list[tuple[str, str]]:
    """Words with tags: good words are entities G (two in a row are one), bad ones B."""
    out, before = [], ""
    for word in sentence(row, row % 2).split():
        tag = ("I-G" if before.endswith("G") else "B-G") if word in GOOD else "B-B" if word in BAD else "O"
        out.append((word, tag))
        before = tag
    return out


def folder(path: Path, train: int = 64, validation: int = 24) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", range(train)), ("validation", range(train, train + validation))):
        text = "\n\n".join("\n".join(f"{word} x {tag}" for word, tag in tagged(row)) for row in rows)
        (path / f"{split}.txt").write_text(f"-DOCSTART- -X- O\n\n{text}\n")
    return path


def made(place: Path, **settings) -> TokenTask:
    files = {split: f"{split}.txt" for split in ("train", "validation")}
    more = {"label_names": NAMES, "metrics": ["f1", "accuracy"], "metric": "f1", **settings}
    return TokenTask("toy", folder=str(place), files=files, **more)


# --- entities, by hand (as seqeval 1.2.2 gives them) ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O B-PER I-PER O", [("PER", 1, 2)]),
        ("B-PER B-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("I-PER I-PER O I-PER", [("PER", 0, 1), ("PER", 3, 3)]),  # without a B: begins where it begins
        ("B-PER I-LOC", [("PER", 0, 0), ("LOC", 1, 1)]),  # another type is another entity
        ("B-PER I-PER E-PER I-PER", [("PER", 0, 2), ("PER", 3, 3)]),
        ("S-PER S-PER B-LOC", [("PER", 0, 0), ("PER", 1, 1), ("LOC", 2, 2)]),
        ("B-A-B I-A-B", [("A-B", 0, 1)]),
        ("O O", []),
    ],
)
def test_entities(tags, found):
    assert entities.entities(tags.split()) == found


def test_scores_of_entities_by_hand(tmp_path):
    """Two of three given entities are right, of four that are there: 2/3, 1/2, 4/7."""
    task = made(
        folder(tmp_path), label_names=["O", "B-P", "I-P", "B-L"], metrics=["f1", "precision", "recall", "accuracy"]
    )
    right = [np.array([1, 2, 0, 3]), np.array([3, 1, 0, 0])]
    given = [np.array([1, 2, 0, 3]), np.array([1, 0, 0, 0])]
    scores = task.evaluate({"tags": given}, {"tags": right})
    assert scores == pytest.approx({"f1": 4 / 7, "precision": 2 / 3, "recall": 1 / 2, "accuracy": 6 / 8})
    shares = task.contributions({"tags": given}, {"tags": right})
    assert {name: values.mean() for name, values in shares.items()} == pytest.approx(scores)
    nothing = task.evaluate({"tags": [row * 0 for row in right]}, {"tags": right})
    assert nothing["f1"] == nothing["precision"] == nothing["recall"] == 0


# --- rows and pieces -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the O\nday\n", "line 2: 'day': some words of the sentence have a tag, some have none"),
        ("the O\nday B-X\n", "line 1: the tag 'B-X' is none of task.label_names"),
        ("the\nday\n", "line 1: 2 words and 0 tags; every word needs one"),
        ("", "has no rows"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, text, message):
    folder(tmp_path)
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(ConfigError, match=message):
        made(tmp_path).records(None, None)


def test_columns_of_lists_are_read_as_the_lines_are(tmp_path):
    place = folder(tmp_path, train=10)
    rows = [tagged(row) for row in range(10)]
    lines = [json.dumps({"tokens": [w for w, _ in row], "ner_tags": [NAMES.index(t) for _, t in row]}) for row in rows]
    (place / "train.jsonl").write_text("\n".join(lines))
    one = sentences.read(place / "train.txt", ("tokens", "ner_tags"), NAMES, True)
    other = sentences.read(place / "train.jsonl", ("tokens", "ner_tags"), NAMES, True)
    assert list(one.content()) == list(other.content()) and one.digest() == other.digest()


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("pieces", ["first", "all"])
def test_every_word_is_asked_once_and_finds_its_tag(request, tmp_path, family, pieces):
    reader = tokenizer.load(request.getfixturevalue(f"tiny_{family}_dir"))
    task = made(folder(tmp_path), pieces=pieces)
    rows = sentences.Sentences(
        [["the", "brightest", "day"], ["so", "unwarmest", "kind", "it", "was", "quite", "dark"]],
        [np.array([0, 1, 0]), np.array([0, 1, 2, 0, 0, 0, 3])],
    )
    data = task.dataset(rows, *task.encoded(reader, 9, rows))
    assert len(data) > 2 and data.lost == 0 and (data.costs <= 9).all()
    kept = data.gather({"tags": data.targets["tags"]})
    assert [row.tolist() for row in kept["tags"]] == [row.tolist() for row in rows.tags]
    batch = data.collate(np.arange(len(data)))
    asked = batch.labels["asked"]
    assert not asked[batch.mask == 0].any() and not asked[:, 0].any(), "never padding, never [CLS]"
    assert int(asked.sum()) == (10 if pieces == "first" else int((data.word >= 0).sum()))
    if pieces == "all":
        later = (data.word >= 0) & ~data.first
        assert later.any() and set(data.tags[later]) <= {0, 2, 3}, "the inside form at later pieces"


def test_only_asked_positions_count():
    head = Tokens(NAMES)
    asked = torch.tensor([[False, True, True, False]])
    tags = torch.tensor([[0, 1, 3, 9]])
    batch = Batch({}, torch.tensor([[1, 1, 1, 0]]), {"asked": asked, "tags": tags}, torch.arange(1))
    flat = torch.zeros(1, 4, 4)
    spoiled = flat.masked_fill(~asked[..., None], 50.0) + torch.tensor([1.0, 0, 0, 0]) * (~asked[..., None])
    student, teacher = {"logits": flat}, {"logits": spoiled.clone()}
    assert head.loss({"logits": spoiled}, batch).item() == pytest.approx(np.log(4))
    assert head.soft_loss(student, teacher, batch).item() == pytest.approx(0, abs=1e-6)
    assert head.squared_error(student, teacher, batch).item() == 0 and head.units(batch) == 2
    teacher["logits"][0, 1] = torch.tensor([np.log(3.0), 0, 0, 0])  # 1/2, 1/6, 1/6, 1/6
    kl = 0.5 * np.log(2) + 0.5 * np.log(4 / 6)
    assert head.soft_loss(student, teacher, batch).item() == pytest.approx(kl / 2, abs=1e-6)


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(compose, tiny_csv_task, tmp_path, monkeypatch, tiny_bert_dir):
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()

    def one(*overrides: str) -> dict:
        words = [w for w in toy(tiny_bert_dir, tiny_csv_task) if not w.startswith("task")]
        mine = ["task=tokens", "task.name=toy", f"task.folder={folder(tmp_path / 'tags')}", f"task.label_names={NAMES}"]
        return execute.execute(spec.make(compose(*words, *mine, *overrides)))

    return one


def test_a_run_learns_words_that_tell_their_tag(run, tmp_path):
    result = run("objective=kd", "teacher.recipe.epochs=8", "recipe.epochs=8", "runtime.teacher_cache=1GB")
    assert result["task"]["kind"] == "tokens" and result["task"]["majority"]["validation"]["f1"] == 0
    assert result["scores"]["validation"]["f1"] > 0.9
    assert result["runtime"]["teacher"]["distill.prediction"]["cached"]
    kept = load_file(tmp_path / result["run"]["folder"] / "predictions" / "validation.safetensors")
    assert kept["by_example.f1"].mean() == pytest.approx(result["scores"]["validation"]["f1"])
    assert kept["tags"].shape == kept["target.tags"].shape


@pytest.mark.parametrize("objective", ["finetune", "annealing", "hid_seq", "ted", "pro_kd"])
def test_objectives_live_on_tokens(run, objective):
    more = ["recipe.steps=2"] if objective != "annealing" else ["objective.intermediate.annealing.tau_max=1"]
    assert 0 <= run(f"objective={objective}", "teacher.recipe.steps=2", *more)["scores"]["validation"]["f1"] <= 1


def test_settings_that_do_not_fit_are_refused(run):
    with pytest.raises(ConfigError, match="whose tags are O, B-TYPE.* has 'NOUN': use task.metrics=\\[accuracy\\]"):
        run("task.label_names=[NOUN,VERB]")
    with pytest.raises(ConfigError, match="metric mcc does not exist .* choose among: f1, precision, recall, accuracy"):
        run("task.metrics=[mcc]", "task.metric=mcc")
