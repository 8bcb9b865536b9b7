"""A student in other forms: they answer as it does, wherever they are asked; what fails leaves nothing."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kdexp.cli import commands, settings
from kdexp.common import results
from kdexp.common.problems import ConfigError
from kdexp.common.registry import build
from kdexp.delivery import card, export, form, forms, intervals, subject, table, timing
from kdexp.run import predict
from tests.conftest import sentence
from tests.test_predict import classifier
from tests.test_room import disk  # noqa: F401 - a fixture

FORMS = ["onnx", "onnx_int8", "onnx_int8_static"]


@pytest.fixture(scope="module")
def place(tiny_bert_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier, ``model``, and its data, ``data``."""
    folder = tmp_path_factory.mktemp("delivery")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        classifier(tiny_bert_dir, folder / "model", 2)
    (folder / "data").mkdir()
    for name, rows in (("train", range(64)), ("validation", range(64, 112))):
        lines = [f"{sentence(row, row % 2)},{'good' if row % 2 else 'bad'}" for row in rows]
        (folder / "data" / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return folder


def student(place: Path) -> subject.Subject:
    task = settings.task("local", None) | {
        "name": "toy", "folder": str(place / "data"), "columns": ["text"], "label_names": ["bad", "good"],
    }  # fmt: skip
    return subject.Subject("student", place / "model", task, None, place / "cache")


@pytest.fixture(scope="module")
def delivered(place: Path) -> tuple[Path, list[export.Row]]:
    """Every form that is installed here, untimed but for one."""
    out = place / "out"
    return out, export.deliver([student(place)], FORMS, out, 1, False, say=lambda line: None)


def answer(folder: Path, texts: list[str]) -> np.ndarray:
    """What a graph answers, by ONNX Runtime and transformers' tokenizer alone."""
    import onnxruntime
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="np")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {one.name: tokens[one.name] for one in session.get_inputs()})[0])


def test_a_graph_answers_as_the_model_does_to_whoever_reads_the_folder(delivered, place):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = [sentence(row, row % 2) for row in range(200, 213)] + ["good"]
    tokens = AutoTokenizer.from_pretrained(place / "model")(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = AutoModelForSequenceClassification.from_pretrained(place / "model")(**tokens).logits.numpy()
    np.testing.assert_allclose(answer(delivered[0] / "onnx", texts), expected, atol=1e-5)
    near = answer(delivered[0] / "onnx_int8", texts)
    assert 0 < np.abs(near - expected).max() < 0.3 * np.abs(expected).max(), "int8 is near, and not the same"


def test_each_form_is_compared_with_the_plain_one_and_scored(delivered, place):
    out, rows = delivered
    assert [row.form for row in rows] == ["pytorch", *FORMS] and not any(row.failed for row in rows)
    said = pd.read_csv(place / "data" / "validation.csv")
    for row in rows:
        if row.form != "pytorch":
            chosen = answer(out / row.form, said["text"].tolist()).argmax(1)
            right = (np.array(["bad", "good"])[chosen] == said["label"]).mean()
            assert abs(right - row.score) < 1 / 40, "padded another way, one int8 answer may turn"
            assert row.gap is not None and row.gap[1] <= row.gap[0] <= row.gap[2]
    plain, onnx = rows[0], rows[1]
    assert onnx.score == plain.score and onnx.apart < 1e-5 < rows[2].apart
    import onnx as format

    graph = format.load(out / "onnx_int8" / "model.onnx").graph
    assert (
        sum(weight.data_type == format.TensorProto.INT8 and len(weight.dims) == 2 for weight in graph.initializer) > 24
    )
    assert b"site-packages" not in (out / "onnx" / "model.onnx").read_bytes(), "nobody's folders are told"


def test_a_graph_with_other_weights_is_seen(delivered, place, monkeypatch):
    """The comparison that is printed would fail for a form that answers something else."""
    from onnxruntime import quantization

    monkeypatch.setattr(quantization, "quantize_dynamic", lambda source, target, **how: shutil.copy2(noisy, target))
    import onnx

    graph = onnx.load(delivered[0] / "onnx" / "model.onnx")
    for weight in graph.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) == 2:
            values = onnx.numpy_helper.to_array(weight)
            weight.CopyFrom(onnx.numpy_helper.from_array(-values, weight.name))
    noisy = place / "noisy.onnx"
    onnx.save(graph, noisy)
    rows = export.deliver([student(place)], ["onnx_int8"], place / "other", 1, False, say=lambda line: None)
    assert rows[1].form == "onnx_int8" and rows[1].apart > 0.1


def test_a_form_that_fails_leaves_nothing_and_stops_no_other(place, monkeypatch):
    monkeypatch.setattr(
        type(form.form("onnx_int8")), "write", lambda *ignored: (_ for _ in ()).throw(OSError("no room"))
    )
    out = place / "part"
    rows = export.deliver([student(place)], ["onnx", "onnx_int8"], out, 1, False, say=lambda line: None)
    assert [(row.form, row.failed) for row in rows] == [("pytorch", ""), ("onnx", ""), ("onnx_int8", "no room")]
    assert sorted(path.name for path in out.iterdir()) == ["onnx", "pytorch"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_new_rows_are_answered_alike_by_every_form(delivered, place, ending, tmp_path, capsys):
    data = tmp_path / "new.csv"
    data.write_text("id,text\n" + "".join(f"0{row},{sentence(row, row % 2)}\n" for row in range(300, 320)))
    tables = {}
    for name in ("pytorch", "onnx", "onnx_int8"):
        path = tmp_path / f"{name}.{ending}"
        words = ["predict", str(delivered[0] / name), f"data={data}", f"out={path}"]
        assert commands.main([*words, "json=true"]) == 0, capsys.readouterr().err
        said = json.loads(capsys.readouterr().out)
        assert said == {"file": str(path), "task": said["task"], "split": None, "rows": 20, "form": name}
        readers = {"csv": pd.read_csv, "jsonl": lambda p, **k: pd.read_json(p, lines=True, **k), "parquet": None}
        tables[name] = pd.read_parquet(path) if ending == "parquet" else readers[ending](path, dtype={"id": str})
    plain = tables["pytorch"]
    assert list(plain) == ["id", "text", "prediction", "p(bad)", "p(good)"] and plain["id"].iloc[0] == "0300"
    np.testing.assert_allclose(plain["p(bad)"] + plain["p(good)"], 1, atol=1e-6)
    assert (plain["prediction"] == np.where(plain["p(good)"] > plain["p(bad)"], "good", "bad")).all()
    np.testing.assert_allclose(tables["onnx"]["p(good)"], plain["p(good)"], atol=1e-5)
    assert np.abs(tables["onnx_int8"]["p(good)"] - plain["p(good)"]).max() < 0.2
    assert (tables["onnx"]["prediction"] == plain["prediction"]).all()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["forms=onnx,tflite"], "names forms that do not exist: tflite; there are pytorch, bf16, onnx"),
        (["threads=0"], "is below 1"),
        (["out=absent/folder"], "there is no folder absent"),
        (["task="], "task= is needed, as the model is no run."),
        (["task=sst2", "root=/tmp"], "sst2"),
    ],
)
def test_what_cannot_be_delivered_is_a_sentence(place, words, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = dict(word.split("=", 1) for word in ["out=new", "task=sst2", *words])
    assert commands.main(["export", str(place / "model"), *(f"{k}={v}" for k, v in given.items())]) == 2
    said = capsys.readouterr().err
    assert expected in said and "Traceback" not in said and not list(tmp_path.iterdir())


def test_a_column_that_would_be_replaced_is_refused(delivered, tmp_path, capsys):
    (tmp_path / "new.csv").write_text("text,prediction\ngood,mine\n")
    words = [str(delivered[0] / "onnx"), f"data={tmp_path / 'new.csv'}", f"out={tmp_path / 'out.csv'}"]
    assert commands.main(["predict", *words]) == 2
    assert "has columns prediction already" in capsys.readouterr().err and not (tmp_path / "out.csv").exists()


@pytest.fixture
def asked(tmp_path, capsys):
    """``asked(folder, *words)`` asks a form about two rows and returns the exit code and what was said."""
    (tmp_path / "two.csv").write_text("text\ngood\nbad\n")

    def ask(folder: Path, *words: str) -> tuple[int, str]:
        code = commands.main(
            ["predict", str(folder), f"data={tmp_path / 'two.csv'}", f"out={tmp_path / 'a.csv'}", *words]
        )
        return code, capsys.readouterr().err

    return ask


@pytest.mark.parametrize("file", ["model.onnx", "tokenizer.json", "config.json"])
def test_one_flipped_byte_in_a_form_is_named(file, delivered, asked, tmp_path):
    """Another letter of the vocabulary is another model too, and nothing but its checksum tells."""
    folder = tmp_path / "onnx"
    shutil.copytree(delivered[0] / "onnx", folder)
    content = bytearray((folder / file).read_bytes())
    place = next(n for n in range(len(content) // 2, len(content)) if chr(content[n]).isalpha())
    content[place] ^= 1
    (folder / file).write_bytes(content)
    code, said = asked(folder)
    assert code == 2 and f"{file} is damaged" in said and not (tmp_path / "a.csv").exists(), said


@pytest.mark.parametrize("name", ["onnx", "pytorch"])
def test_a_task_of_other_labels_is_refused_for_every_form(delivered, asked, tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(delivered[0] / name, folder)
    said = json.loads((folder / "config.json").read_text())
    said |= {"id2label": {"0": "good", "1": "bad"}, "label2id": {"good": 0, "bad": 1}}
    (folder / "config.json").write_text(json.dumps(said))
    code, told = asked(folder)  # the task has bad before good
    assert code == 2 and "bad" in told and "label" in told and "Traceback" not in told, told


def test_settings_without_effect_are_refused(delivered, asked):
    code, said = asked(delivered[0] / "onnx", "device=cuda", "split=validation")
    assert code == 2 and "split=validation, device=cuda has no effect" in said
    code, said = asked(delivered[0] / "onnx", "max_length=8")
    assert code == 0, said


def test_answers_that_are_not_finite_are_no_form(place, monkeypatch):
    from kdexp.delivery.forms.onnx import Onnx

    load = Onnx.load
    monkeypatch.setattr(
        Onnx, "load", lambda *a: lambda inputs: {k: v * float("nan") for k, v in load(*a)(inputs).items()}
    )
    rows = export.deliver([student(place)], ["onnx"], place / "nan", 1, False, say=lambda line: None)
    assert "outputs on validation are not finite" in rows[1].failed and not (place / "nan" / "onnx").exists()


def test_an_operator_that_onnx_lacks_is_named(place, tmp_path):
    """A model of somebody's own, whose answers need eigenvalues."""

    class Eigen(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
            table = (input_ids * attention_mask)[:, :2].float()
            return SimpleNamespace(logits=torch.linalg.eigvals(table[:, :, None] * table[:, None, :]).real)

    ids = torch.randint(5, 100, (3, 6))
    batch = SimpleNamespace(inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    with pytest.raises(
        ValueError, match=r"^PyTorch's exporter .*: ONNX has no operator for aten\.linalg_eig, which it"
    ):
        form.form("onnx").write(Eigen(), student(place).task.head, tmp_path, tmp_path, lambda: iter([batch]))


def test_a_disk_too_small_is_a_sentence_before_anything_is_written(disk, place):  # noqa: F811
    disk.resize(100_000)
    out = disk.folder / "out"
    with pytest.raises(ConfigError, match=r"needs about \d+ MiB and 0 MiB are free: ask for fewer forms"):
        export.deliver([student(place)], ["onnx"], out, 1, False, say=lambda line: None)
    assert not out.exists()


def test_a_disk_that_fills_while_a_form_is_written_costs_that_form_alone(disk, place, monkeypatch):  # noqa: F811
    """The sum that is asked for before was too small: somebody else writes to the disk as well."""
    weights = (place / "model" / "model.safetensors").stat().st_size
    disk.resize(5 * weights + 400_000)
    write = forms.onnx.Onnx.write

    def meanwhile(*given: Any) -> None:
        if "small disk" in str(given[3]):
            disk.fill(weights // 4)
        write(*given)

    monkeypatch.setattr(forms.onnx.Onnx, "write", meanwhile)
    plain, onnx = export.deliver([student(place)], ["onnx"], disk.folder / "out", 1, False, say=lambda line: None)
    assert not plain.failed and "disk is full" in onnx.failed, onnx.failed
    assert (disk.folder / "out" / "pytorch" / "model.safetensors").stat().st_size == weights
    assert not (disk.folder / "out" / "onnx").exists()


def test_what_onnx_runtime_cannot_load_is_a_sentence(delivered, place, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match="ONNX Runtime cannot load"):
        form.form("onnx").load(tmp_path, student(place).task.head, 1)


def test_times_are_of_the_form_in_its_own_process(delivered, place, tmp_path):
    texts = {
        size: [{k: v.numpy() for k, v in next(student(place).sample("validation", size)).inputs.items()}]
        for size in (1, 32)
    }
    timing.save(tmp_path / "texts.npz", texts)
    told = timing.measure("onnx", delivered[0] / "onnx", student(place).settings, tmp_path / "texts.npz", 1)
    assert set(told["latency_ms"]) == {"1", "32"} and 0 < told["latency_ms"]["1"] <= told["p95_ms"]["1"]
    assert told["memory_mb"] > 50 and told["examples_per_s"] > 0
    with pytest.raises(RuntimeError, match="timing onnx failed"):
        timing.measure("onnx", place / "absent", student(place).settings, tmp_path / "texts.npz", 1)


def test_intervals_hold_what_they_say():
    """Of scores drawn around a known truth, about 95 of 100 intervals hold it."""
    task = student(Path("/nowhere")).task
    rng, n, held = np.random.default_rng(5), 120, 0
    for _ in range(100):
        right = rng.random(n) < 0.8
        labels = rng.integers(0, 2, n)
        logits = np.eye(2)[np.where(right, labels, 1 - labels)]
        low, high = intervals.interval(task, {"logits": logits}, {"label": labels})
        held += low <= 0.8 <= high
    assert 87 <= held <= 100
    same = intervals.interval(task, {"logits": logits}, {"label": labels}, {"logits": 3 * logits})
    assert same == (0.0, 0.0), "forms that decide alike do not differ, whatever the labels"
    whole = intervals.interval(task, {"logits": np.eye(2)[labels]}, {"label": labels})
    assert whole == pytest.approx((0.025 ** (1 / n), 1.0)), "none of 120 was wrong; the next one may be"


def test_the_command_writes_table_and_card(place, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    words = ["export", str(place / "model"), f"out={tmp_path / 'out'}", "forms=onnx", "timed=false", "json=true"]
    folder = tmp_path / "data" / "glue" / "sst2"
    shutil.copytree(place / "data", folder)
    for name in ("train", "validation"):
        table = pd.read_csv(folder / f"{name}.csv")
        table["sentence"], table["label"] = table["text"], (table["label"] == "good").astype(int)
        table.to_parquet(folder / f"{name}.parquet")
    assert commands.main([*words, "task=sst2", f"root={tmp_path / 'data'}"]) == 0, capsys.readouterr().err
    told = json.loads(capsys.readouterr().out)
    assert [row["form"] for row in told["rows"]] == ["pytorch", "onnx"] and told["metric"] == "accuracy"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card and "| student | onnx |" in card
    assert f"accuracy {100 * told['rows'][0]['score']:.1f}" in card
    assert commands.main([*words, "task=sst2", f"root={tmp_path / 'data'}"]) == 2
    assert "is there already and not empty" in capsys.readouterr().err


# --- new rows: nothing of theirs is lost, nothing is answered in vain ----------------------------------------


def test_other_columns_keep_their_values(delivered, tmp_path, capsys):
    given = [
        {"id": 2**53 + 1, "text": "good day", "note": "a\rb, c"},
        {"id": None, "text": "", "note": None, "more": {"ü": [1, None]}},
        {"id": 7, "text": "bad\nlight", "note": '"'},
    ]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    for ending in ("jsonl", "csv"):
        words = [str(delivered[0] / "pytorch"), f"data={tmp_path / 'new.jsonl'}", f"out={tmp_path / 'out'}.{ending}"]
        assert commands.main(["predict", *words]) == 0, capsys.readouterr().err
    got = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [{key: row[key] for key in ("id", "text", "note", "more")} for row in got] == [
        {"more": None, **row} for row in given
    ]
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["id"] for row in table] == [str(2**53 + 1), "", "7"]
    assert [row["note"] for row in table] == ["a\rb, c", "", '"'] and json.loads(table[1]["more"]) == {"ü": [1, None]}


def test_parquet_keeps_whole_numbers_beside_gaps(delivered, tmp_path, capsys):
    import datetime

    day = datetime.datetime(2026, 1, 2, 3)
    rows = pa.table({"id": pa.array([2**53 + 1, None]), "when": [day, None], "text": ["good", "bad"]})
    pq.write_table(rows, tmp_path / "new.parquet")
    for ending in ("parquet", "jsonl"):
        words = [str(delivered[0] / "onnx"), f"data={tmp_path / 'new.parquet'}", f"out={tmp_path / 'out'}.{ending}"]
        assert commands.main(["predict", *words]) == 0, capsys.readouterr().err
    got = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert got["id"] == [2**53 + 1, None] and got["when"] == [day, None]
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["when"] == day.isoformat()


@pytest.mark.parametrize(
    ("content", "out", "expected"),
    [
        ('{"text": "good", "prediction": 1}', "a.jsonl", "has columns prediction already"),
        ('{"text": "good", "id": 1}\n{"text": "bad", "id": "x"}', "a.parquet", "column id has values of several types"),
        ('{"text": "good"}', "folder.csv", "folder.csv is a folder: name a file"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_answered(
    content, out, expected, delivered, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(type(form.form("onnx")), "load", lambda *given: pytest.fail("a model was loaded"))
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "new.jsonl").write_text(content + "\n")
    words = [str(delivered[0] / "onnx"), f"data={tmp_path / 'new.jsonl'}", f"out={tmp_path / out}"]
    assert commands.main(["predict", *words]) == 2
    assert expected in capsys.readouterr().err and sorted(path.name for path in tmp_path.iterdir()) == [
        "folder.csv", "new.jsonl",
    ]  # fmt: skip


def test_an_empty_line_of_a_file_of_one_column_is_no_row_that_vanishes(delivered, asked, tmp_path):
    (tmp_path / "two.csv").write_text("text\ngood\n\nbad\n\n")
    code, said = asked(delivered[0] / "onnx")
    assert code == 2 and "line 3 is empty" in said and not (tmp_path / "a.csv").exists()
    (tmp_path / "two.csv").write_text('text\ngood\n""\nbad\n\n')
    assert asked(delivered[0] / "onnx")[0] == 0 and len(pd.read_csv(tmp_path / "a.csv")) == 3


def test_texts_that_are_cut_are_counted(delivered, asked, tmp_path):
    (tmp_path / "two.csv").write_text(f"text\ngood\n{'bad ' * 500}\n")
    code, said = asked(delivered[0] / "onnx")
    assert code == 0 and "1 of 2 rows are longer than the model reads" in said


@pytest.mark.parametrize(
    ("word", "expected"),
    [("threads=0", "threads='0' is below 1"), ("max_length=129", "max_length=129 is above the 128 tokens that model=")],
)
def test_numbers_that_cannot_be_meant_are_refused(word, expected, delivered, asked):
    code, said = asked(delivered[0] / "onnx", word)
    assert code == 2 and expected in said, said


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("tokenizer_config.json", '{"model_max', "tokenizer_config.json is damaged"),
        ("tokenizer_config.json", '{"model_max_length": [1]}', "tokenizer_config.json is damaged"),
        ("result.json", "{}", "result.json is damaged (it has no run)"),
        ("model.onnx", None, "model.onnx is missing: it is not what was exported"),
    ],
)
def test_damaged_files_are_named(file, content, expected, delivered, asked, tmp_path):
    folder = tmp_path / "onnx"
    shutil.copytree(delivered[0] / "onnx", folder)
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_text(content)
    if file == "result.json":
        (folder / forms.RECORD).unlink()
    code, said = asked(folder)
    assert code == 2 and expected in said and "Traceback" not in said, said


def test_a_folder_that_is_not_there_is_what_is_said(asked, tmp_path):
    code, said = asked(tmp_path / "gone")
    assert code == 2 and f"model={tmp_path / 'gone'} is no folder" in said


@pytest.mark.parametrize(("tokenizer", "positions", "length"), [(1024, 1026, 1024), (10**30, None, 512), (32, 128, 32)])
def test_texts_are_cut_where_the_model_was_trained(tokenizer, positions, length, place, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": positions}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": tokenizer}))
    asked = replace(student(place), folder=tmp_path).asked
    assert predict.context(asked).max_length == length


# --- exports: what is said of them is so ------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("text,label\ngood,mine\nbad,bad\n", "label 'mine' is neither one of"),
        ("text,label\ngood,good\n", "validation of task=toy has one row"),
    ],
)
def test_rows_that_cannot_be_scored_leave_nothing(rows, expected, place, tmp_path):
    shutil.copytree(place / "data", tmp_path / "data")
    (tmp_path / "data" / "validation.csv").write_text(rows)
    one = student(place)
    one = replace(one, settings=one.settings | {"folder": str(tmp_path / "data")})
    with pytest.raises(ConfigError, match=expected):
        export.deliver([one], [], tmp_path / "out", 1, False, say=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_a_model_that_answers_nothing_leaves_no_folder(place, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(place / "model", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["classifier.weight"][:] = float("nan")
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="outputs on validation are not finite"):
        export.deliver(
            [replace(student(place), folder=tmp_path / "model")], [], tmp_path / "out", 1, False, lambda line: None
        )
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_is_missing_or_a_file_in_the_way_is_said_before(place, tmp_path):
    shutil.copytree(place / "model", tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ConfigError, match="no tokenizer can be loaded"):
        export.deliver(
            [replace(student(place), folder=tmp_path / "model")], [], tmp_path / "out", 1, False, lambda line: None
        )
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    assert export.problems([student(place)], [], tmp_path / "file") == [
        f"out={tmp_path / 'file'} is a file: name a folder."
    ]


def test_times_are_of_batches_of_the_size_that_is_said(place, tmp_path, monkeypatch):
    """Validation has 48 rows: a second batch of 16 would be told as one of 32."""
    seen = {}

    def measure(form, folder, settings, texts, threads):
        seen.update({size: [len(one["input_ids"]) for one in some] for size, some in timing._read(texts).items()})
        return {}

    monkeypatch.setattr(timing, "measure", measure)
    export.deliver([student(place)], [], tmp_path / "out", 1, True, say=lambda line: None)
    assert seen == {1: [1] * 48, 32: [32, 32]}


def test_a_form_that_cannot_be_timed_is_delivered_and_named(place, tmp_path, monkeypatch):
    """Its process may be killed for memory; what was made and checked stays."""

    def measure(form, folder, settings, texts, threads):
        if form == "onnx":
            raise RuntimeError("timing onnx failed: Killed")
        return {"latency_ms": {"1": 2.0, "32": 9.0}, "p95_ms": {"1": 3.0, "32": 9.5}, "examples_per_s": 3.0,
                "memory_mb": 7.0}  # fmt: skip

    monkeypatch.setattr(timing, "measure", measure)
    rows = export.deliver([student(place)], ["onnx"], tmp_path / "out", 1, True, say=lambda line: None)
    assert [(row.form, bool(row.times), row.untimed) for row in rows] == [
        ("pytorch", True, ""), ("onnx", False, "timing onnx failed: Killed"),
    ]  # fmt: skip
    assert (tmp_path / "out" / "onnx" / "model.onnx").is_file()
    told = table.lines(rows, "accuracy", {"hardware": "here", "threads": 1, "notes": []})
    assert "- student as onnx could not be timed: timing onnx failed: Killed" in told


def test_rows_that_changed_since_the_run_are_told(place):
    one = student(place)
    sha = one.task.fingerprint(None, one.cache)
    assert replace(one, result={"task": {"data_hash": sha}}).notes == one.notes == []
    (said,) = replace(one, result={"task": {"data_hash": "0" * 64}}).notes
    assert "not those of the run, whose content was 000000000000" in said and sha[:12] in said


def test_a_run_is_judged_on_its_own_task_and_data(place, tmp_path, capsys):
    run = tmp_path / "mine"
    (run / ".hydra").mkdir(parents=True)
    settings_ = student(place).settings
    (run / ".hydra" / "config.yaml").write_text(json.dumps({"task": settings_, "data": {"root": "/its/root"}}))
    told = {"run": {}, "task": {}, "scores": {}, "student": {"weights": str(place / "model")}, "cost": {}}
    results.write(run, told)
    assert commands.main(["export", str(run), f"out={tmp_path / 'out'}", "task=sst2"]) == 2
    assert "task=sst2 has no effect" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert [one.root for one in subject.of_run(run, None, tmp_path, {})] == ["/its/root"]
    assert [one.root for one in subject.of_run(run, "/mine", tmp_path, {})] == ["/mine"]


def test_an_interval_leaves_draws_out_on_which_the_metric_is_not_defined(place):
    one = student(place)
    task = build(one.settings | {"metric": "roc_auc", "metrics": ["roc_auc"]})
    labels = np.array([1] + [0] * 11)  # a third of all draws has no example of class 1
    logits = np.stack([np.zeros(12), np.linspace(1, -1, 12)], axis=1).astype(np.float32)
    low, high = intervals.interval(task, {"logits": logits}, {"label": labels})
    assert low == high == 1.0


def test_a_card_does_not_call_a_model_distilled_whose_origin_is_unknown(place):
    row = export.Row("student", "pytorch", 0.5, 0.4, 0.6)
    said = card.text(student(place), [row], [])
    assert "a classification model" in said and "distilled" not in said and "distillation" not in said
    assert 'pipeline("text-classification", model="pytorch", truncation=True)' in said
