"""The matrix: every source of a teacher in the hub's own form, fine-tuned, saved, distilled, exported, read by others.

A cell is a checkpoint with an objective or an init. Each ends in a student whose folder transformers alone, in a fresh
process, reads to the same answers as kdexp, and to the score that was reported.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdexp.cli import main
from kdexp.common.registry import build
from kdexp.config.resolve import sizes
from kdexp.models import build as models
from kdexp.models import convert, weights
from kdexp.run import execute, spec
from kdexp.train import evaluate
from kdexp.train.context import RunContext
from tests.conftest import RunProgram, program_environment, sentence
from tests.hub.catalogue import CATALOGUE
from tests.hub.checkpoints import publish, write
from tests.hub.server import Hub
from tests.test_runs import toy

TEXT = [name for name, checkpoint in CATALOGUE.items() if checkpoint.vocabulary and name != "gpt2"]
OBJECTIVES = ["finetune", "kd", "hid_cls", "hid_seq", "att_kl", "val_kl", "minilm", "minilm_v2", "patience", "ted"]
INITS = ["random", "first", "last", "spread", "layers", "ptp"]
WITH_ATTENTION = {"att_kl", "val_kl", "minilm", "minilm_v2"}
SHORT = ["recipe.steps=3", "teacher.recipe.steps=6", "recipe.batch_size=8", "teacher.recipe.batch_size=8"]
CELLS = [f"objective={name}" for name in OBJECTIVES] + [f"init={name}" for name in INITS]

# What transformers makes of exported folders, without kdexp: one JSON line of logits for each.
READ = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging

logging.set_verbosity_error()
for model, tokenizer, texts in json.load(sys.stdin):
    reader = AutoTokenizer.from_pretrained(tokenizer)
    plain, told = AutoModelForSequenceClassification.from_pretrained(model, output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), (model, told)
    with torch.no_grad():
        print(json.dumps([plain(**reader(text, return_tensors="pt")).logits[0].tolist() for text in texts]))
"""
ROWS = range(64, 80)


@dataclass
class Export:
    """A model that kdexp wrote, what it answers by kdexp's own reading, and the score that was reported."""

    cell: str
    folder: Path
    tokenizer: Path
    logits: np.ndarray
    score: float


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small task as two CSV files."""
    folder = tmp_path / "task"
    folder.mkdir()
    for name, rows in (("train", range(48)), ("validation", ROWS)):
        lines = [f"{sentence(row, row % 2)},{'good' if row % 2 else 'bad'}" for row in rows]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return folder


@pytest.fixture
def carry_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Path, compose: Callable[..., Any]):
    """``carry_out(folder, *overrides)`` runs a configuration and returns its spec and its result."""
    monkeypatch.chdir(tmp_path)
    main.environment()

    def run(folder: Path, *overrides: str) -> tuple[spec.RunSpec, dict[str, Any]]:
        ready = spec.make(compose(*toy(folder, data), *SHORT, *overrides))
        return ready, execute.execute(ready)

    return run


def safe(name: str, folder: Path, **how: Any) -> Path:
    """Write a checkpoint; where the hub has it pickled only, convert it as a user would."""
    written = write(name, folder, **how).folder
    if CATALOGUE[name].safe:
        return written
    convert.convert(written, folder.with_name(f"{folder.name}-safetensors"))
    return folder.with_name(f"{folder.name}-safetensors")


def exports(ready: spec.RunSpec, result: dict[str, Any], teacher: Path, cell: str) -> list[Export]:
    """The teacher and the student of a run, as kdexp reads them again."""
    config, made = ready.config, []
    head = build(config.task).head
    cache = Path(config.runtime.store).absolute() / "cache"
    context = RunContext(config, torch.device("cpu"), "fp32", 1, cache, say=lambda line: None)
    split = context.data(config.recipe.max_length)["validation"]
    folder = Path(result["student"]["weights"])
    student = models.build_student(config.teacher, config.student, head, None, 0)
    loaded = [("student", folder, models.load_weights(student, folder))]
    if result["teacher"] is not None:
        stage = folder.parent / result["teacher"]["key"]
        loaded.append(("teacher", stage, models.load_teacher(config.teacher, head, stage)))
    for who, place, model in loaded:
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        logits = evaluate.predict(model, split, head, context)["logits"]
        score = (result["teacher"]["scores"] if who == "teacher" else result["scores"])["validation"]["accuracy"]
        made.append(Export(f"{cell} {who}", place, teacher, logits, score))
    return made


def read_by_others(made: list[Export], cwd: Path) -> None:
    """Read every folder in one fresh process that does not know kdexp; compare answers and scores."""
    texts = [sentence(row, row % 2) for row in ROWS]
    jobs = [[str(export.folder), str(export.tokenizer), texts] for export in made]
    done = subprocess.run(
        [sys.executable, "-c", READ], input=json.dumps(jobs), capture_output=True, text=True, cwd=cwd, timeout=1500,
        env=program_environment({"PYTHONPATH": None}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    labels = np.array([row % 2 for row in ROWS])
    assert np.median([export.logits.std(0).max() for export in made]) > 1e-4, "one answer to every text proves nothing"
    for export, line in zip(made, done.stdout.splitlines(), strict=True):
        logits = np.array(json.loads(line))
        np.testing.assert_allclose(logits, export.logits, rtol=1e-4, atol=1e-5, err_msg=export.cell)
        assert float((logits.argmax(-1) == labels).mean()) == pytest.approx(export.score), export.cell


def refusal(name: str, cell: str) -> str | None:
    """Why a cell cannot be, by the rules that the documentation states; None = it can."""
    kind, _, word = cell.partition("=")
    if name.startswith("deberta") and word in WITH_ATTENTION:
        return "gives logits and hidden states only"
    if name == "modernbert" and kind == "init" and word in ("last", "spread", "layers"):
        return "only init=first and init=random keep their wiring"
    return None


def extra(name: str, cell: str) -> list[str]:
    """What a cell needs beside its name."""
    if cell == "init=ptp":  # a teacher that is right everywhere leaves no median of wrong answers
        return ["init.t1=0.6", "init.t2=0.6"]
    if cell == "init=layers":
        return ["init.chosen=[1,2]"] if CATALOGUE[name].sizes.layers == 2 else ["init.chosen=[1,3]"]
    return []


def matrix(name: str, cells: list[str], carry_out: Any, tmp_path: Path) -> list[Export]:
    """Carry out the cells of one checkpoint."""
    teacher, made = safe(name, tmp_path / name), []
    for cell in cells:
        words = [cell, *extra(name, cell)]
        why = refusal(name, cell)
        if why is not None:
            with pytest.raises(ValueError, match=why):
                carry_out(teacher, *words)
            print(f"cell {name} {cell}: refused ({why})")
            continue
        ready, result = carry_out(teacher, *words)
        made += exports(ready, result, teacher, f"{name} {cell}")
        print(f"cell {name} {cell}: {result['scores']['validation']['accuracy']:.3f}")
    return made


SOME = {
    "bert_base": ["objective=att_kl", "init=last"],
    "roberta_base": ["objective=minilm_v2"],
    "deberta_v3_xsmall": ["objective=hid_seq", "objective=minilm"],
    "modernbert": ["objective=kd", "init=last"],
}


def test_some_cells(carry_out: Any, tmp_path: Path):
    made = [export for name, cells in SOME.items() for export in matrix(name, cells, carry_out, tmp_path)]
    assert len(made) == 10
    read_by_others(made, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TEXT)
def test_every_cell(name: str, carry_out: Any, tmp_path: Path):
    read_by_others(matrix(name, CELLS, carry_out, tmp_path), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["bert_base", "roberta_base", "electra", "deberta_v3_xsmall", "modernbert", "minilm"])
def test_shared_layers_of_every_family(name: str, carry_out: Any, tmp_path: Path):
    teacher, made = safe(name, tmp_path / name), []
    for kind in ("sps1", "sps2"):
        words = ["init=first", "student=l6" if name == "modernbert" else "student=l2", f"student.sharing={kind}"]
        if name.startswith("deberta") and kind == "sps2":
            with pytest.raises(ValueError, match="use student.sharing=sps1"):
                carry_out(teacher, *words)
            continue
        ready, result = carry_out(teacher, *words)
        made += exports(ready, result, teacher, f"{name} {kind}")
    if name == "modernbert":
        with pytest.raises(ValueError, match="runs the first layer again in a place where family modernbert"):
            carry_out(teacher, "student=l2", "student.sharing=sps1")
    read_by_others(made, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["bert_base", "roberta_base", "electra", "deberta_v3_xsmall", "modernbert", "minilm"])
def test_real_width(name: str, carry_out: Any, tmp_path: Path):
    teacher = safe(name, tmp_path / name, real=True)
    words = ["task.limit_train=16", "recipe.steps=1", "teacher.recipe.steps=1"]
    ready, result = carry_out(teacher, "objective=hid_seq", "init=first", *words)
    read_by_others(exports(ready, result, teacher, name), tmp_path)


# --- forms -----------------------------------------------------------------------------------------------------------


def test_weights_in_several_files_teach_the_same(carry_out: Any, tmp_path: Path):
    students = []
    for shards in (1, 3):
        folder = write("bert_l2_h128", tmp_path / str(shards), shards=shards).folder
        _, result = carry_out(folder, "objective=kd")
        students.append((Path(result["student"]["weights"]) / weights.SINGLE).read_bytes())
    assert students[0] == students[1]


def test_half_precision_is_read_as_single(compose: Callable[..., Any], data: Path, tmp_path: Path):
    from safetensors.torch import load_file

    folder = safe("deberta_v3_xsmall", tmp_path / "half")
    file = load_file(folder / weights.SINGLE)
    assert {tensor.dtype for tensor in file.values()} == {torch.float16}
    config = spec.make(compose(*toy(folder, data))).config
    model = models.load_pretrained(config.teacher, build(config.task).head)
    name = "deberta.encoder.layer.0.output.dense.weight"
    assert torch.equal(model.state_dict()[name], file[name].float())


def test_a_classifier_of_other_classes_is_a_start(carry_out: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Three classes for two: the old head goes, with a line, for fine-tuning, for an init and for its own stage."""
    folder = write("roberta_mnli", tmp_path / "mnli").folder
    with caplog.at_level(logging.INFO, "kdexp"):
        carry_out(folder, "objective=kd", "init.source=pretrained", "init.pooler=false")
    lines = {record.getMessage() for record in caplog.records if "starts anew" in record.getMessage()}
    (line,) = lines
    assert "classifier.out_proj.bias (3,) -> (2,)" in line and "classifier.dense" not in line
    carry_out(folder, "objective=kd", "init=ptp")


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("roberta_mnli", [], "the teacher has 3 outputs"),
        ("distilbert_sst2", ["task.label_names=[good,bad]"], "label names differ"),
        ("bert_l2_h128", [], r"has no weights of a classifier \(classifier"),
    ],
)
def test_a_finished_classifier_that_is_none_is_refused_in_the_check(
    name: str, words: list[str], sentence: str, compose: Callable[..., Any], data: Path, tmp_path: Path
):
    folder = write(name, tmp_path / name).folder
    ready, problems = spec.prepare(compose(*toy(folder, data), "teacher.finetune=false", *words))
    assert ready is None and len(problems) == 1 and re.search(sentence, problems[0]), problems


@pytest.mark.parametrize(("name", "reason"), [("gpt2", "from left to right"), ("vit", "reads images")])
def test_what_is_no_text_encoder_is_refused_for_that(
    name: str, reason: str, compose: Callable[..., Any], data: Path, tmp_path: Path
):
    folder = write(name, tmp_path / name).folder
    ready, problems = spec.prepare(compose(*toy(folder, data)))
    assert ready is None and len(problems) == 1 and reason in problems[0], problems


# --- pickled weights -------------------------------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as started:
        yield started


def declared(folder: Path) -> list[str]:
    """The sizes of a reduced model, for a shipped teacher that states the real ones."""
    told = sizes({"source": f"path:{folder}"})
    return [f"teacher.{key}={told[key]}" for key in ("hidden_size", "intermediate_size", "vocab_size")]


def hub_words(name: str, folder: Path, data: Path) -> list[str]:
    """A run with a shipped teacher, short."""
    rest = [word for word in toy(folder, data) if not word.startswith(("teacher=", "teacher.source", "teacher.name"))]
    return [f"teacher={name}", *declared(folder), *rest, *SHORT]


@pytest.mark.parametrize(
    "name",
    [
        "deberta_v3_base",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("bert_base", "bert_large", "roberta_base", "roberta_large", "electra", "modernbert")
        ),
    ],
)
def test_each_shipped_teacher_of_the_hub_ends_in_a_result(
    name: str, hub: Hub, kdexp: RunProgram, data: Path, tmp_path: Path
):
    """Pickled ones are refused before anything runs, and what the refusal advises works."""
    publish(hub, name, tmp_path / "files" / name)
    words, home = hub_words(name, tmp_path / "files" / name, data), hub.environment(tmp_path / "home")
    done = kdexp(words, env=home)
    if not CATALOGUE[name].safe:
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert "pytorch_model.bin is pickled" in done.stderr and not (tmp_path / "multirun").exists()
        advice = re.search(r"python -m kdexp (convert .*?) \(then (teacher\.source=\S+)\)", done.stderr)
        assert advice is not None
        converted = kdexp([*shlex.split(advice[1]), "json=true"], env=home)
        assert converted.returncode == 0, converted.stderr
        assert json.loads(converted.stdout)["word"] == advice[2]
        words, home = [*words, advice[2]], {**home, "HF_HUB_OFFLINE": "1"}
        done = kdexp(words, env=home)
    assert done.returncode == 0, done.stderr
    again = kdexp([*words, "seed=2"], env={**home, "HF_HUB_OFFLINE": "1"})
    assert again.returncode == 0, again.stderr
    results = [json.loads(path.read_text()) for path in (tmp_path / "multirun" / "adhoc").glob("*/result.json")]
    assert [result["teacher"]["name"] for result in results] == [name, name]
    assert not hub.outside and not hub.asked("GET", "discussions|commits")


def test_pickled_weights_are_converted_as_they_are(tmp_path: Path):
    folder, target = write("bert_sst2", tmp_path / "old").folder, tmp_path / "new"
    pickled = torch.load(folder / "pytorch_model.bin", weights_only=True)
    tied = {**pickled, "cls.predictions.decoder.weight": pickled["bert.embeddings.word_embeddings.weight"]}
    tied["turned"] = pickled["classifier.weight"].t()
    torch.save(tied, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)  # as in 2019
    convert.convert(folder, target)
    from safetensors.torch import load_file

    safe_ones = load_file(target / weights.SINGLE)
    assert set(safe_ones) == set(tied) and all(torch.equal(safe_ones[name], tied[name]) for name in tied)
    assert (target / "vocab.txt").read_bytes() == (folder / "vocab.txt").read_bytes()
    assert not list(target.glob("*.bin"))
    with pytest.raises(ValueError, match="is there already"):
        convert.convert(folder, target)


class Harm:
    """What a pickle can do: it names any function."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("harm"),)


@pytest.mark.parametrize("content", [Harm(), {"a": Harm()}, {"a": 1}, [1], {}])
def test_a_pickle_that_is_more_than_weights_is_not_converted(
    content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    folder = write("bert_sst2", tmp_path / "old").folder
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be read as weights alone|something else than a model's weights"):
        convert.convert(folder, tmp_path / "new")
    assert not (tmp_path / "harm").exists() and sorted(p.name for p in tmp_path.iterdir()) == ["old"]
