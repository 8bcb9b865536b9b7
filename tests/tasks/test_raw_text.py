"""Raw text: masks that are a pure function, packs that are checked, documents on one side only, errors in sentences."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from kdexp.heads.hidden_tokens import NOTHING, PLACES, TOKENS, scores
from kdexp.tasks.base import DataContext
from kdexp.tasks.text import corpus, packing, tokenizer
from kdexp.tasks.text.masking import Masking, noise, share, word_beginnings
from kdexp.tasks.text.raw import RawText
from tests.conftest import sentence

LONG = 100


def masking(**changes: object) -> Masking:
    special = np.zeros(50, dtype=bool)
    special[:5] = True
    return Masking(**{"share": 0.15, "masked": 0.8, "replaced": 0.1, "mask": 4, "special": special, **changes})


def sequences(rows: int, length: int = LONG) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(0).integers(5, 50, (rows, length))
    ids[:, 0], ids[:, -1] = 2, 3
    return ids, np.ones_like(ids, dtype=bool)


def test_a_mask_depends_on_seed_and_example_alone():
    ids, real = sequences(40)
    seen, places, hidden = masking().hide(ids, real, 7, np.arange(40))
    some = np.array([31, 5, 12])
    for one, all_of_them in zip(masking().hide(ids[some], real[some], 7, some), (seen, places, hidden), strict=True):
        assert (one == all_of_them[some]).all(), "whoever stands beside it"
    wider = np.pad(ids, ((0, 0), (0, 20)))
    there = masking().hide(wider, np.pad(real, ((0, 0), (0, 20))), 7, np.arange(40))
    assert (there[0][:, :LONG] == seen).all(), "however wide the batch is"
    assert (masking().hide(ids, real, 8, np.arange(40))[1] != places).any()
    assert (masking().hide(ids, real, 7, np.arange(1, 41))[1] != places).any()


def test_shares_and_what_is_put_in_place():
    ids, real = sequences(4000)
    seen, places, hidden = masking().hide(ids, real, 1, np.arange(4000))
    assert (hidden != NOTHING).all() and hidden.shape == (4000, 15), "15 of 98 ordinary tokens"
    assert (np.take_along_axis(ids, places, 1) == hidden).all() and (hidden >= 5).all()
    assert all(len(set(row)) == 15 for row in places[:100]), "no place twice"
    shown = np.take_along_axis(seen, places, 1)
    kinds = [(shown == 4).mean(), ((shown != 4) & (shown != hidden)).mean(), (shown == hidden).mean()]
    assert kinds == pytest.approx([0.8, 0.1 * 44 / 45, 0.1 + 0.1 / 45], abs=0.01)
    others = np.ones_like(real)
    np.put_along_axis(others, places, False, 1)
    assert (seen[others] == ids[others]).all()
    spread = np.bincount(places.ravel(), minlength=LONG)
    assert spread[0] == spread[-1] == 0 and spread[1:-1].std() / spread[1:-1].mean() < 0.06


def test_noise_is_uniform():
    values = share(noise(3, np.arange(500), 200, 1)).ravel()
    assert np.histogram(values, 20, (0, 1))[0] == pytest.approx(np.full(20, 5000), rel=0.06)
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01


def test_whole_words_are_hidden_whole():
    begins = np.ones(50, dtype=bool)
    begins[30:] = False
    ids, real = sequences(300)
    _, places, hidden = masking(begins=begins).hide(ids, real, 1, np.arange(300))
    for row, at, word in zip(ids, places, hidden, strict=True):
        chosen = {int(p) for p, h in zip(at, word, strict=True) if h != NOTHING}
        assert chosen
        start = np.flatnonzero(begins[row] | (np.arange(LONG) == 1))
        for place in chosen:
            first = start[start <= place].max()
            after = start[start > place]
            whole = set(range(first, int(after.min()) if len(after) else LONG - 1)) - {0, LONG - 1}
            assert whole <= chosen, "a word is hidden whole or not at all"
    assert (hidden != NOTHING).sum(1).mean() > 0.8 * 15
    assert word_beginnings(["[CLS]", "a", "##b"]).tolist() == [True, True, False]
    assert word_beginnings(["<s>", "Ġa", "b"]).tolist() == [False, True, False]
    assert word_beginnings(["a", "b"]) is None


# --- packs ---------------------------------------------------------------------------------------------------------

TEXTS = [". ".join(sentence(7 * row + k, k % 2) for k in range(4 + row % 5)) for row in range(120)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "texts"
    place.mkdir()
    (place / "train.txt").write_text("\n\n".join(TEXTS[:100]))
    parquet.write_table(pa.table({"id": range(20), "text": TEXTS[100:]}), place / "validation.parquet")
    return place


def context(model: Path, cache: Path, **changes: object) -> DataContext:
    given = {"model": str(model), "options": {"local_files_only": True}, "vocab_size": 131, "positions": 128}
    given |= {"max_length": 32, "root": None, "heldout": 0.1, "cache": cache, "say": lambda line: None}
    return DataContext(**{**given, **changes})


def task(folder: Path, **changes: object) -> RawText:
    return RawText("mlm", folder=str(folder), **changes)


@pytest.mark.parametrize("documents", ["joined", "apart"])
def test_every_token_of_every_text_is_in_one_sequence(folder, tmp_path, tiny_bert_dir, documents):
    data = task(folder, documents=documents).datasets(context(tiny_bert_dir, tmp_path))
    assert set(data) == {"train", "heldout", "validation"}
    reader = tokenizer.load(tiny_bert_dir)
    found = {}
    for name, split in data.items():
        rows = [split.tokens[i, 1 : split.lengths[i] - 1].tolist() for i in range(len(split))]
        assert {int(split.tokens[i, 0]) for i in range(len(split))} == {reader.cls_token_id}
        assert {int(split.tokens[i, n - 1]) for i, n in enumerate(split.lengths)} == {reader.sep_token_id}
        found[name] = sorted(token for row in rows for token in row if token != reader.sep_token_id)
        if documents == "joined":
            assert (split.lengths[:-1] == 32).all(), "all but the last are full"
        else:
            assert not any(reader.sep_token_id in row for row in rows)
        assert split.facts["tokens"] == len(found[name]) == split.counts.sum()
        assert isinstance(split.tokens, np.memmap)
    ids = {name: sorted(i for t in texts for i in reader(t, add_special_tokens=False)["input_ids"]) for name, texts in {
        "train": [t for t in TEXTS[:100] if corpus.place(t) >= 0.1],
        "heldout": [t for t in TEXTS[:100] if corpus.place(t) < 0.1],
        "validation": TEXTS[100:],
    }.items()}  # fmt: skip
    assert found == ids, "equal texts fall on one side"


def test_masks_change_with_the_step_and_stay_for_scoring(folder, tmp_path, tiny_bert_dir):
    data = task(folder).datasets(context(tiny_bert_dir, tmp_path))["train"]
    one, again, other = (data.collate(np.arange(8), step_seed=seed) for seed in (5, 5, 6))
    assert (one.inputs["input_ids"] == again.inputs["input_ids"]).all()
    assert (one.labels[PLACES] != other.labels[PLACES]).any()
    scored = data.collate(np.arange(8))
    assert (scored.labels[TOKENS].numpy() == data.targets[TOKENS][:8]).all(), "the labels are those of its batches"
    part = data.collate(np.array([6, 2]), step_seed=5)
    assert (part.inputs["input_ids"] == one.inputs["input_ids"][[6, 2]]).all()


def test_a_damaged_pack_is_named_and_made_anew(folder, tmp_path, tiny_bert_dir, caplog):
    first = task(folder).datasets(context(tiny_bert_dir, tmp_path))
    before = np.array(first["train"].tokens)
    [entry] = [path for path in (tmp_path / "packed").iterdir() if path.is_dir()]
    for name, spoil in (
        ("train.tokens", lambda content: content[:-2] + b"\1\1"),
        ("heldout.lengths", lambda content: content[:-4]),
        ("meta.json", lambda content: content.replace(b'"sequences": ', b'"sequences": 1')),
    ):
        path = entry / name
        path.write_bytes(spoil(path.read_bytes()))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            again = task(folder).datasets(context(tiny_bert_dir, tmp_path))
        assert str(entry) in caplog.text and name in caplog.text and "made anew" in caplog.text
        assert (np.array(again["train"].tokens) == before).all()
    caplog.clear()
    task(folder).datasets(context(tiny_bert_dir, tmp_path))
    assert caplog.text == ""


def test_the_fingerprint_is_of_the_texts(folder, tmp_path):
    before = task(folder).fingerprint(None)
    other = tmp_path / "other"
    other.mkdir()
    (other / "train.jsonl").write_text("".join(json.dumps({"text": f"{t}\n"}) + "\n" for t in TEXTS[:99]))
    parquet.write_table(pa.table({"text": TEXTS[100:]}), other / "validation.parquet")
    assert task(other).fingerprint(None) != before, "one text is missing"
    plain = "".join(f"{t}\n\n" for t in TEXTS[:100])
    (folder / "train.txt").write_text(plain + "\n\n  \n")
    assert task(folder).fingerprint(None, tmp_path) == task(folder).fingerprint(None, tmp_path)


def test_a_limited_corpus_is_not_read_to_its_end(folder, tmp_path, tiny_bert_dir, monkeypatch):
    read = []
    monkeypatch.setattr(packing, "CHUNK", 64)
    documents = corpus.documents
    task(folder).fingerprint(None, tmp_path)
    monkeypatch.setattr(corpus, "documents", lambda *args: (read.append(t) or t for t in documents(*args)))
    data = task(folder, limit_train=4, limit_validation=3).datasets(context(tiny_bert_dir, tmp_path, heldout=0.0))
    assert len(data["train"]) == 4 and len(data["validation"]) == 3
    assert len(read) < 40 + 20


def test_scores_of_answers_that_are_known():
    hidden = np.array([[7, 8, NOTHING], [9, NOTHING, NOTHING]])
    found = scores(
        {"token": np.array([[7, 0, 9], [9, 1, 1]]), "loss": np.array([[1.0, 2, 5], [3, 5, 5]])}, {TOKENS: hidden}
    )
    assert found == {"accuracy": 2 / 3, "mlm_loss": 2.0, "perplexity": pytest.approx(np.e**2), "log_likelihood": -2.0}
    ragged = scores(
        {"token": [np.array([7, 0]), np.array([9])], "loss": [np.array([1.0, 2]), np.array([3.0])]}, {TOKENS: hidden}
    )
    assert ragged == found


# --- what cannot work ------------------------------------------------------------------------------------------------


def test_problems_are_said_before_anything_is_read(folder, tmp_path, tiny_bert_dir):
    assert "has no file train.* with the ending .txt" in task(tmp_path).problems(None)[0]
    assert "data.root is unset" in RawText("mlm", folder="somewhere").problems(None)[0]
    (folder / "train.csv").write_text("title,body\na,b\n")
    (folder / "train.txt").unlink()
    assert "has no column text (it has title, body): change task.column" in task(folder).problems(None)[0]
    for words, told in (
        ({"folder": None}, "task.folder and task.hub are both null"),
        ({"files": {"validation": "a"}}, "name train"),
        ({"masked": 0.9, "replaced": 0.2}, "together at most 1"),
        ({"mask": 0.0}, "hides nothing"),
        ({"metrics": ["f1"], "metric": "f1"}, "metric f1 does not exist"),
        ({"metrics": ["perplexity"], "metric": "perplexity"}, "better when lower"),
    ):
        with pytest.raises(ValueError, match=told.replace("(", r"\(")):
            RawText("mlm", **{"folder": str(folder), **words})


def test_texts_and_tokenizers_that_cannot_be_used(folder, tmp_path, tiny_bert_dir):
    here = context(tiny_bert_dir, tmp_path)
    assert task(folder).unusable(here) == []
    (folder / "train.txt").write_text("\n\n   \n")
    assert "has no text: nothing can be learned" in task(folder).unusable(here)[0]
    (folder / "train.txt").unlink()
    (folder / "train.jsonl").write_text('{"text": 5}\n')
    assert "row 0: int is no text" in task(folder).unusable(here)[0]
    (folder / "train.jsonl").write_text('{"text": ""}\n')
    assert "has no text in its column text" in task(folder).unusable(here)[0]
    with pytest.raises(ValueError, match="has no text in its column text"):
        task(folder).fingerprint(None)


def test_a_tokenizer_without_a_mask_token(folder, tmp_path, tiny_roberta_dir):
    import shutil

    model = Path(shutil.copytree(tiny_roberta_dir, tmp_path / "model"))
    said = json.loads((model / "tokenizer_config.json").read_text())
    said.pop("mask_token", None)
    (model / "tokenizer_config.json").write_text(json.dumps(said | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    assert "has no mask token: take a teacher" in task(folder).unusable(context(model, tmp_path))[0]
