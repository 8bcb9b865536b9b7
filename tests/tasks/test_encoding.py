"""Tokenised splits: what is in them, how they are padded, and that many processes share one piece of work."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdexp.tasks.base import DataContext
from kdexp.tasks.text import tokenizer as tokenizers
from kdexp.tasks.text.encoding import Encoded, encode, encode_once, load
from kdexp.tasks.text.rows import Rows
from kdexp.tasks.text.table import TextTask

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bert(tiny_bert_dir: Path) -> Any:
    return tokenizers.load(tiny_bert_dir)


def csv_task(folder: Path) -> TextTask:
    files = {"train": "train.csv", "validation": "validation.csv"}
    return TextTask(name="tiny", columns=["text"], label_names=["bad", "good"], folder=str(folder), files=files)


SECOND = ["so fresh", "the light felt quite stale", "calm"]
PAIRS = Rows(["the day was warm", "cold", "kind"], SECOND, np.array([1, 0, 1]))


def test_ids_are_those_of_the_tokenizer(bert: Any) -> None:
    found = encode(bert, PAIRS, 32)
    for i, (a, b) in enumerate(zip(PAIRS.first, PAIRS.second or [], strict=True)):
        wanted = bert(a, b)
        part = slice(found.offsets[i], found.offsets[i + 1])
        assert found.tokens[part].tolist() == wanted["input_ids"]
        assert found.types is not None
        assert found.types[part].tolist() == wanted["token_type_ids"]
    assert (len(found), found.truncated, found.pad) == (3, 0, bert.pad_token_id)


def test_truncation_is_counted(bert: Any) -> None:
    found = encode(bert, PAIRS, 8)
    assert found.costs.max() == 8
    assert found.truncated == int(np.sum(encode(bert, PAIRS, 99).costs > 8)) == 2
    with pytest.raises(ValueError, match="max_length=4: at least 5"):
        encode(bert, PAIRS, 4)


def test_model_without_segments(tiny_roberta_dir: Path) -> None:
    tokenizer = tokenizers.load(tiny_roberta_dir)
    found = encode(tokenizer, PAIRS, 64)
    assert found.types is None
    assert "token_type_ids" not in found.collate(np.array([0])).inputs


def test_batch_is_padded(bert: Any) -> None:
    found = encode(bert, PAIRS, 32)
    batch = found.collate(np.array([2, 0]))
    wanted = bert(["kind", "the day was warm"], ["calm", "so fresh"], padding=True, return_tensors="pt")
    for key in ("input_ids", "attention_mask", "token_type_ids"):
        assert batch.inputs[key].tolist() == wanted[key].tolist()
    assert batch.labels["label"].tolist() == [1, 1]
    assert batch.index.tolist() == [2, 0]
    assert tuple(found.collate(np.array([2]), width=16).inputs["input_ids"].shape) == (1, 16)
    with pytest.raises(ValueError, match="width=4 is shorter"):
        found.collate(np.array([1]), width=4)


def test_cached_and_read_fast(tmp_path: Path, tiny_csv_task: Path, bert: Any) -> None:
    task = csv_task(tiny_csv_task)
    first = task.encode(bert, 32, None, 0.1, tmp_path)
    start = time.perf_counter()
    again = task.encode(bert, 32, None, 0.1, tmp_path)
    assert time.perf_counter() - start < 0.5  # milliseconds on an idle machine
    assert {k: len(v) for k, v in again.items()} == {"train": 58, "heldout": 6, "validation": 32}
    for name, split in first.items():
        assert np.array_equal(split.tokens, again[name].tokens)
    assert not again["train"].tokens.flags.writeable
    assert len(list((tmp_path / "encoded").glob("*/meta.json"))) == 1
    task.encode(bert, 16, None, 0.1, tmp_path)
    task.encode(bert, 32, None, 0.2, tmp_path)
    assert len(list((tmp_path / "encoded").glob("*/meta.json"))) == 3


def test_a_tokenizer_is_loaded_where_texts_are_cut_only(
    tmp_path: Path, tiny_csv_task: Path, tiny_bert_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading one takes longer than reading what it has cut; another file, length or library is another reader."""
    task, folder, loaded = csv_task(tiny_csv_task), tmp_path / "model", []
    shutil.copytree(tiny_bert_dir, folder)
    load = tokenizers.load
    monkeypatch.setattr(tokenizers, "load", lambda *words: loaded.append(words) or load(*words))

    def cut(length: int = 32) -> dict[str, Any]:
        before = len(loaded)
        context = DataContext(str(folder), {"local_files_only": True}, None, 512, length, None, 0.1, tmp_path / "cache")
        splits = task.datasets(context)
        return {"loads": len(loaded) - before, "tokens": splits["train"].tokens.tolist()}

    first = cut()
    assert first["loads"] == 1
    assert cut() == {"loads": 0, "tokens": first["tokens"]}
    assert cut(16)["loads"] == 1
    for array in (tmp_path / "cache" / "encoded").glob("*/train.tokens.npy"):
        array.write_bytes(array.read_bytes()[:-8])
    assert cut() == first  # made anew
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text() + "\n")
    assert cut() == first  # nobody knows whether it is the same
    monkeypatch.setattr(tokenizers, "versions", lambda: ["another"])
    assert cut() == first


def test_damaged_entry_is_made_anew(tmp_path: Path, bert: Any, caplog: pytest.LogCaptureFixture) -> None:
    def once() -> dict[str, Encoded]:
        return encode_once(bert, 16, "k", lambda: {"train": PAIRS}, tmp_path)

    wanted = once()["train"].tokens.tolist()
    [array] = (tmp_path / "encoded").glob("*/train.tokens.npy")
    array.write_bytes(array.read_bytes()[:-8])
    assert load(array.parent) is None
    assert once()["train"].tokens.tolist() == wanted
    assert "is damaged" in caplog.text
    assert not list((tmp_path / "encoded").glob(".new-*"))


@pytest.mark.parametrize("array", ["tokens", "labels", "offsets", "types"])
def test_a_flipped_bit_is_found(tmp_path: Path, bert: Any, caplog: pytest.LogCaptureFixture, array: str) -> None:
    """The arrays keep their shapes, so that nothing else would tell: a run would train on another text or label."""

    def once() -> Encoded:
        return encode_once(bert, 16, "k", lambda: {"train": PAIRS}, tmp_path)["train"]

    wanted = getattr(once(), array).tolist()
    [path] = (tmp_path / "encoded").glob(f"*/train.{array}.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert getattr(once(), array).tolist() == wanted
    assert f"train.{array}.npy is not what was written" in caplog.text


def test_digest_ignores_earlier_calls(tiny_bert_dir: Path, tiny_roberta_dir: Path, bert: Any) -> None:
    before = tokenizers.digest(bert)
    bert(["a", "b c"], padding=True, truncation=True, max_length=4)
    assert tokenizers.digest(bert) == before == tokenizers.digest(tokenizers.load(tiny_bert_dir))
    assert tokenizers.digest(tokenizers.load(tiny_roberta_dir)) != before


def test_tokenizer_problems(tmp_path: Path, bert: Any) -> None:
    assert tokenizers.problems(bert, len(bert), max_length=128) == []
    assert "ids up to" in tokenizers.problems(bert, 50)[0]
    assert "recipe.max_length=512" in tokenizers.problems(bert, len(bert), max_length=512)[0]
    with pytest.raises(ValueError, match="no tokenizer can be loaded"):
        tokenizers.load(tmp_path)


WORKER = """
import json, sys
from pathlib import Path
from kdexp.tasks.text import encoding, tokenizer
from kdexp.tasks.text.table import TextTask
made = []
original = encoding.encode
encoding.encode = lambda *a: made.append(1) or original(*a)
files = {"train": "train.csv", "validation": "validation.csv"}
task = TextTask(name="tiny", columns=["text"], label_names=["bad", "good"], folder=sys.argv[1], files=files)
bert = tokenizer.load(sys.argv[2])
out = task.encode(bert, 32, None, 0.1, Path(sys.argv[3]))
print(json.dumps([len(made), int(out["train"].tokens.sum()), "torch" in sys.modules]))
"""


def test_four_processes_do_the_work_once(tmp_path: Path, tiny_csv_task: Path, tiny_bert_dir: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tiny_csv_task), str(tiny_bert_dir), str(tmp_path / "cache")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) for _ in range(4)]
    results = [json.loads(w.communicate(timeout=200)[0].splitlines()[-1]) for w in workers]
    assert sorted(r[0] for r in results) == [0, 0, 0, 3]
    assert len({r[1] for r in results}) == 1


def test_no_heavy_import_before_work() -> None:
    modules = "import sys, kdexp.train.batching; from kdexp.tasks.text import pydocs_area, pydocs_match, table"
    code = f"{modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    heavy = {"torch", "transformers", "datasets", "pandas", "sklearn", "scipy", "pyarrow"}
    assert not heavy & set(loaded.stdout.split())
