"""Local files of every format, data sets that are missing, and GLUE where it is at hand."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from kdexp.tasks.text import hub
from kdexp.tasks.text.table import TextTask

CONF = Path(__file__).resolve().parents[2] / "conf"
GLUE = ["rte", "mrpc", "cola", "sst2", "stsb", "wnli", "qnli", "qqp", "mnli"]


def from_yaml(name: str, **changes: Any) -> TextTask:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = OmegaConf.to_container(compose(f"task/{name}").task, resolve=True) | changes
    assert settings.pop("_target_") == "kdexp.tasks.text.table.TextTask"
    return TextTask(**settings)


def write(folder: Path, ending: str, rows: int = 40) -> None:
    """The same two splits in any format; awkward characters on purpose."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, start in (("train", 0), ("validation", 1000)):
        texts = [f'no. {start + i}, so "quoted" and\u00fcber\u2028' for i in range(rows)]
        names = [["bad", "good"][i % 4 == 0] for i in range(rows)]
        path = folder / f"{split}{ending}"
        objects = [{"text": t, "label": n, "more": 1} for t, n in zip(texts, names, strict=True)]
        if ending == ".parquet":
            import pyarrow as pa
            from pyarrow import parquet

            parquet.write_table(pa.Table.from_pylist(objects), path)
        elif ending == ".csv":
            quoted = ['"' + t.replace('"', '""') + '"' for t in texts]
            lines = [f"{n},{t}\n" for n, t in zip(names, quoted, strict=True)]
            path.write_text("label,text\n" + "".join(lines), "utf-8-sig")
        elif ending == ".tsv":
            path.write_text("label\ttext\n" + "".join(f"{n}\t{t}\n" for n, t in zip(names, texts, strict=True)))
        elif ending == ".json":
            path.write_text(json.dumps(objects))
        else:
            path.write_text("".join(json.dumps(o) + "\n" for o in objects))


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".tsv", ".json", ".jsonl"])
def test_same_rows_from_every_format(tmp_path: Path, ending: str) -> None:
    write(tmp_path / "reference", ".parquet")
    write(tmp_path / "mine", ending)
    reference = from_yaml("local", folder=str(tmp_path / "reference"), label_names=["bad", "good"])
    task = from_yaml("local", folder=str(tmp_path / "mine"), label_names=["bad", "good"])
    assert task.problems(None) == []
    assert task.fingerprint(None) == reference.fingerprint(None)
    cut = task.splits(None, 0.25)
    assert {k: len(v) for k, v in cut.items()} == {"train": 30, "heldout": 10, "validation": 40}
    assert cut["heldout"].labels.mean() == pytest.approx(0.25, abs=0.051)
    assert not set(cut["train"].first) & set(cut["heldout"].first)
    assert cut["train"].first == task.splits(None, 0.25)["train"].first


def test_held_out_edges(tmp_path: Path) -> None:
    write(tmp_path, ".csv")
    task = from_yaml("local", folder=str(tmp_path), label_names=["bad", "good"])
    assert set(task.splits(None, 0.0)) == {"train", "validation"}
    for share in (1.0, 0.001):
        with pytest.raises(ValueError, match="data.heldout"):
            task.splits(None, share)


def test_limit_keeps_shares_and_is_nested_in_train(tmp_path: Path) -> None:
    write(tmp_path, ".csv", rows=400)
    task = from_yaml("local", folder=str(tmp_path), label_names=["bad", "good"], limit_train=100)
    rows = task.splits(None, 0.1)
    assert (len(rows["train"]), len(rows["heldout"]), len(rows["validation"])) == (90, 10, 400)
    assert np.concatenate([rows["train"].labels, rows["heldout"].labels]).sum() == 25
    assert rows["train"].first == task.splits(None, 0.1)["train"].first
    whole = from_yaml("local", folder=str(tmp_path), label_names=["bad", "good"])
    assert whole.fingerprint(None) != task.fingerprint(None)


def test_fingerprint_follows_content(tmp_path: Path) -> None:
    write(tmp_path / "a", ".csv")
    task = from_yaml("local", folder=str(tmp_path / "a"), label_names=["bad", "good"])
    cache = tmp_path / "cache"
    before = task.fingerprint(None, cache)
    assert before == task.fingerprint(None, cache) == task.fingerprint(None)
    path = tmp_path / "a" / "train.csv"
    path.write_text(path.read_text("utf-8-sig").replace("no. 7,", "no. seven,"))
    assert task.fingerprint(None, cache) == task.fingerprint(None) != before


def test_regression_and_class_ids(tiny_csv_task: Path) -> None:
    folder = str(tiny_csv_task)
    settings = {"label": "score", "kind": "regression", "label_names": [], "metrics": ["pearson"], "metric": "pearson"}
    score = from_yaml("local", folder=folder, **settings)
    labels = score.splits(None, 0.1)["train"].labels
    assert labels.dtype == np.float32
    assert 0 <= labels.min() < labels.max() <= 5
    with pytest.raises(ValueError, match=r"row 0: label 'bad' is neither one of \['no', 'yes'\] nor an id from 0 to 1"):
        from_yaml("local", folder=folder, label_names=["no", "yes"]).fingerprint(None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nhello,2\n", "nor an id from 0 to 1"),
        ("text,label\nhello,-1\n", "hidden test labels"),
        ("text,label\nhello\n", "line 2 has 1 fields, the header has 2"),
        ("text,label\n", "has no rows"),
        ("words,label\nhello,1\n", "has no column text; it has words, label"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, content: str, message: str) -> None:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        from_yaml("local", folder=str(tmp_path)).fingerprint(None)


def test_missing_text_is_named(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text('{"text": "a", "label": 0}\n{"text": null, "label": 1}\n')
    with pytest.raises(ValueError, match="column text, row 1: None is no text"):
        from_yaml("local", folder=str(tmp_path)).fingerprint(None)


def test_problems_are_sentences_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    [unset] = from_yaml("rte").problems(None)
    assert unset == (
        "task=rte reads <data.root>/glue/rte/train.parquet and <data.root>/glue/rte/validation.parquet; data.root is "
        "unset and the hub is switched off (HF_HUB_OFFLINE=1): "
        "set KDEXP_DATA or data.root=..., or unset HF_HUB_OFFLINE."
    )
    [missing] = from_yaml("rte").problems(str(tmp_path))
    assert f"{tmp_path}/glue/rte/train.parquet" in missing
    assert "this is missing" in missing
    [local] = from_yaml("local", folder=str(tmp_path / "none")).problems(None)
    assert "train.csv or train.tsv" in local
    assert "correct task.folder or task.files" in local
    with pytest.raises(ValueError, match="data.root is unset"):
        from_yaml("rte").splits(None, 0.1)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    assert from_yaml("rte").problems(None) == []


def test_problems_name_columns_and_formats(tmp_path: Path) -> None:
    write(tmp_path, ".csv")
    found = from_yaml("local", folder=str(tmp_path), columns=["txt"], label="class").problems(None)
    assert len(found) == 4
    assert "has no column txt (it has label, text): change task.columns" in found[0]
    (tmp_path / "train.xml").write_text("<a/>")
    files = {"train": "train.xml", "validation": "validation.csv"}
    assert "unknown ending '.xml'" in from_yaml("local", folder=str(tmp_path), files=files).problems(None)[0]


def test_partial_sets_are_marked(tmp_path: Path) -> None:
    write(tmp_path / "glue_partial" / "qnli", ".parquet")
    changes = {"columns": ["text"], "label_names": ["bad", "good"]}
    task = from_yaml("qnli", **changes)
    assert task.shown_name(str(tmp_path)) == "qnli_partial"
    assert "never compare with published scores" in str(task.note(str(tmp_path)))
    write(tmp_path / "glue" / "qnli", ".parquet")
    assert task.shown_name(str(tmp_path)) == "qnli"
    assert task.note(str(tmp_path)) is None


def test_hub_is_not_touched_when_the_root_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "glue" / "rte", ".parquet")
    monkeypatch.setattr(hub, "fetch", lambda *a, **k: pytest.fail("asked the hub"))
    task = from_yaml("rte", columns=["text"], label_names=["bad", "good"])
    assert len(task.splits(str(tmp_path), 0.1, cache=tmp_path / "cache")["train"]) == 36


def test_hub_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    calls = []

    def download(folder: Path, dataset: str, config: str | None, revision: str | None) -> None:
        calls.append((dataset, config, revision))
        write(folder, ".parquet")
        (folder / "validation.parquet").rename(folder / "validation_matched.parquet")
        (folder / "complete").touch()

    monkeypatch.setattr(hub, "_download", download)
    task = from_yaml("mnli", columns=["text"], label_names=["bad", "good"])
    first = task.fingerprint(None, tmp_path)
    assert set(task.splits(None, 0.1, cache=tmp_path)) == {"train", "heldout", "validation"}
    assert task.fingerprint(None, tmp_path) == first
    assert calls == [("nyu-mll/glue", "mnli", None)]
    with pytest.raises(ValueError, match="has no split elsewhere"):
        from_yaml("mnli", hub_splits={"train": "elsewhere"}).fingerprint(None, tmp_path)


@pytest.mark.parametrize("name", [*GLUE, "boolq", "local"])
def test_yaml_builds_and_every_key_is_explained(name: str) -> None:
    task = from_yaml(name)
    assert task.name == name
    lines = [
        line
        for file in ("_base", "_sequence", "_files", "_text")
        for line in (CONF / "task" / f"{file}.yaml").read_text().splitlines()
    ]
    explained = {line.partition(":")[0] for above, line in pairwise(lines) if above.startswith("#")}
    assert {field.name for field in fields(task)} <= explained


@pytest.mark.parametrize(
    ("name", "train", "validation", "majority"),
    [
        ("rte", 2490, 277, {"accuracy": 0.527}),
        ("mrpc", 3668, 408, {"accuracy": 0.684, "f1": 0.812}),
        ("cola", 8551, 1043, {"accuracy": 0.691, "mcc": 0.0}),
        ("sst2", 67349, 872, {"accuracy": 0.509}),
        ("stsb", 5749, 1500, {"pearson": 0.0, "spearman": 0.0, "pearson_spearman": 0.0}),
        ("wnli", 635, 71, {"accuracy": 0.563}),
    ],
)
def test_glue_on_disk(data_root: Path, name: str, train: int, validation: int, majority: dict[str, float]) -> None:
    if not (data_root / "glue" / name).is_dir():
        pytest.skip(f"{data_root} has no glue/{name}")
    task = from_yaml(name)
    assert task.problems(str(data_root)) == []
    rows = task.splits(str(data_root), 0.0)
    assert (len(rows["train"]), len(rows["validation"])) == (train, validation)
    assert task.trivial({"label": rows["train"].labels}, {"label": rows["validation"].labels}) == pytest.approx(
        majority, abs=6e-4
    )


def test_partial_glue_on_disk(data_root: Path) -> None:
    for name in ("qnli", "mnli"):
        if not (data_root / "glue_partial" / name).is_dir():
            pytest.skip(f"{data_root} has no glue_partial/{name}")
        task = from_yaml(name, limit_train=500)
        assert task.shown_name(str(data_root)) in (f"{name}_partial", name)
        assert len(task.splits(str(data_root), 0.1)["train"]) == 450


@pytest.mark.parametrize(
    ("name", "content", "first"),
    [
        ("train.csv", "text,label\n007,1\n", "007"),
        ("train.csv", "text,label\nNA,1\n", "NA"),
        ("train.csv", 'text,label\r\n"a\r\nb",1\r\n', "a\r\nb"),
        ("train.tsv", 'text\tlabel\nsay "x\t1\n', 'say "x'),
        ("train.json", '[{"text": "2020-01-01", "label": 1}]', "2020-01-01"),
        ("train.jsonl", '{"text": "2020-01-01", "label": 1}\n{"text": "12", "label": "1"}\n', "2020-01-01"),
    ],
)
def test_texts_arrive_as_they_were_written(tmp_path: Path, name: str, content: str, first: str) -> None:
    """What a reader that guesses types would turn into numbers, dates or nothing."""
    (tmp_path / name).write_bytes(content.encode())
    (tmp_path / "validation.csv").write_text("text,label\nx,0\n")
    rows = from_yaml("local", folder=str(tmp_path)).splits(None, 0.0)["train"]
    assert rows.first[0] == first and set(rows.labels) == {1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nhello,1,2\n", "line 2 has 3 fields, the header has 2"),
        ('text,label\n"hel"lo,1\n', "cannot be read: line 2: .* expected after"),
        ('text,label\n"hello,1\nb,0\n', "cannot be read: line 3: unexpected end of data"),
    ],
)
def test_a_broken_row_is_never_mended(tmp_path: Path, content: str, message: str) -> None:
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        from_yaml("local", folder=str(tmp_path)).fingerprint(None)


def test_the_hub_leaves_parquet_in_the_cache_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own prepared copy goes again; what it had prepared before is used where it lies."""
    import datasets

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "library"))
    write(tmp_path / "remote", ".csv")
    real, caches = datasets.load_dataset, []

    def load_dataset(name: str, config: str, revision: str | None, cache_dir: str | None) -> Any:
        caches.append(cache_dir)
        files = {split: str(tmp_path / "remote" / f"{split}.csv") for split in ("train", "validation")}
        return real("csv", data_files=files, cache_dir=cache_dir or str(tmp_path / "library"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in ("first", "second"):
        fetched = hub.fetch(tmp_path / name, "someone/set", "plain", None, {"train": "train"}, [])
        assert fetched["train"].stat().st_size > 0
        left = sorted(path.name for path in fetched["train"].parent.iterdir())
        assert left == ["complete", "train.parquet", "validation.parquet"]
        assert not (tmp_path / "library" / "csv").exists() or name == "second"
        (tmp_path / "library" / "someone___set" / "plain").mkdir(parents=True, exist_ok=True)
    assert caches[0] is not None and Path(caches[0]).is_relative_to(tmp_path / "first") and caches[1] is None
