"""A student in MLflow's registry: loaded by others, with the answers of the exported folder, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from kdexp.cli import commands
from tests.conftest import sentence
from tests.test_predict import classifier
from tests.test_runs import results, toy

ASK = """
import json, sys, mlflow
told = mlflow.pyfunc.load_model(sys.argv[1]).predict(json.loads(sys.argv[2]))
print(told.to_json(orient="records"))
"""


def loaded(model: str, texts: list, uri: str, folder: Path) -> pd.DataFrame:
    """What a registered model answers in a process that knows nothing of kdexp, and has no network."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "KDEXP_DATA")}
    env |= {"MLFLOW_TRACKING_URI": uri, "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-P", "-c", ASK, model, json.dumps(texts)]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return pd.DataFrame(json.loads(done.stdout.splitlines()[-1]))


def asked(folder: Path, texts: list) -> pd.DataFrame:
    from transformers import pipeline

    return pd.DataFrame(pipeline("text-classification", model=str(folder), device="cpu")(texts))


def test_a_run_becomes_a_registered_model(
    uri, kdexp, tiny_bert_dir, tiny_csv_task, shown, tmp_path, monkeypatch, capsys
):
    words = [word for word in toy(tiny_bert_dir, tiny_csv_task) if word != "tracking=off"]
    done = kdexp([*words, "study=mine", "runtime.keep_weights=final", "tracking.timeout_s=60"])
    assert done.returncode == 0, done.stderr
    (result,) = results(tmp_path, "mine").values()
    monkeypatch.chdir(tmp_path)
    folder, request = result["run"]["folder"], ["forms=pytorch", "timed=false", "teacher=false", "register=mails/s"]
    assert commands.main(["export", folder, "out=small", *request]) == 2
    assert "takes any printable characters but / and :" in capsys.readouterr().err and not Path("small").exists()
    request[-1] = "register=mails"
    for version in (1, 2):
        assert commands.main(["export", folder, f"out=small{version}", *request]) == 0, capsys.readouterr().err
        assert f"registered models:/mails/{version}" in capsys.readouterr().err
    texts = [sentence(row, row % 2) for row in range(40, 46)] + ["good " * 400]
    got, told = loaded("models:/mails/1", texts, uri, tmp_path), asked(tmp_path / "small1" / "pytorch", texts[:-1])
    pd.testing.assert_frame_equal(got.iloc[:-1], told, atol=1e-6)
    assert len(got) == len(texts), "a long text is cut, as training cut it"
    runs = shown.runs()
    (run_id, place), (other, elsewhere) = shown.rows("select run_id, source from model_versions order by version")
    assert {run_id, other} == {runs[result["run"]["name"]]} and place != elsewhere
    kept = Path(place.removeprefix("file://"))
    files = {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()}
    assert {"MLmodel", "model/model.safetensors", "components/tokenizer/tokenizer.json", "input_example.json"} <= files
    assert not [name for name in files if Path(name).suffix in (".pkl", ".bin", ".pt", ".pth", ".joblib")]
    flavour = (kept / "MLmodel").read_text()
    assert str(tmp_path) not in flavour, "nobody's folders are told"
    signature = yaml.safe_load(flavour)["signature"]
    assert [one["type"] for one in json.loads(signature["inputs"])] == ["string"]
    assert [one["name"] for one in json.loads(signature["outputs"])] == ["label", "score"]
    needs = (kept / "requirements.txt").read_text()
    assert [line.partition("==")[0] for line in needs.split()] == ["mlflow", "torch", "transformers"]
    assert "+" not in needs, "a build for this machine is none for others"
    assert "distilled classification model" in (kept / "model_card.md").read_text()


def test_a_saved_pair_classifier_and_a_store_that_is_away(uri, tiny_bert_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "data" / "glue" / "rte"
    place.mkdir(parents=True)
    texts = {f"sentence{i}": [sentence(row + i, row % 2) for row in range(16)] for i in (1, 2)}
    for split in ("train", "validation"):
        pd.DataFrame({**texts, "label": [0, 1] * 8}).to_parquet(place / f"{split}.parquet")
    folder = classifier(tiny_bert_dir, tmp_path / "model", 2)
    said = json.loads((folder / "config.json").read_text())
    said |= {"id2label": {"0": "entailment", "1": "not_entailment"}, "label2id": {"entailment": 0, "not_entailment": 1}}
    (folder / "config.json").write_text(json.dumps(said))
    words = ["export", str(folder), "task=rte", f"root={tmp_path / 'data'}", "forms=pytorch", "timed=false"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert commands.main([*words, "out=new", "register=pairs", f"uri=http://127.0.0.1:{port}"]) == 2
    told = capsys.readouterr().err
    assert f"MLflow at http://127.0.0.1:{port}" in told and "Traceback" not in told and not Path("new").exists()
    assert commands.main([*words, "out=new", f"uri={uri}"]) == 2 and "no effect" in capsys.readouterr().err
    assert commands.main([*words, "out=new", "register=pairs", f"uri={uri}"]) == 0, capsys.readouterr().err
    pairs = [{"text": a, "text_pair": b} for a, b in zip(texts["sentence1"], texts["sentence2"][::-1], strict=True)]
    pd.testing.assert_frame_equal(loaded("models:/pairs/1", pairs, uri, tmp_path), asked(folder, pairs), atol=1e-6)


def test_an_export_stays_whole_where_the_store_fails_later(uri, tiny_bert_dir, tmp_path, monkeypatch, capsys):
    from kdexp.tracking.mlflow_store import Store

    monkeypatch.chdir(tmp_path)
    place = tmp_path / "data" / "glue" / "sst2"
    place.mkdir(parents=True)
    for split in ("train", "validation"):
        rows = {"sentence": [sentence(row, row % 2) for row in range(16)], "label": [0, 1] * 8}
        pd.DataFrame(rows).to_parquet(place / f"{split}.parquet")
    folder = classifier(tiny_bert_dir, tmp_path / "model", 2)
    monkeypatch.setattr(Store, "experiment", lambda *ignored: shutil.copy("absent", "elsewhere"))
    words = ["task=sst2", f"root={tmp_path / 'data'}", "forms=pytorch", "timed=false", "register=late", f"uri={uri}"]
    assert commands.main(["export", str(folder), "out=new", *words]) == 1
    said = capsys.readouterr().err
    assert "new is whole without it" in said and "Traceback" not in said
    kept = {"README.md", "pytorch", "table.csv", "table.json", "table.md"}
    assert {path.name for path in Path("new").iterdir()} == kept


@pytest.mark.parametrize("name", ["", "a:b", "x" * 300, "two\nlines"])
def test_names_that_mlflow_does_not_take(name, uri):
    from kdexp.delivery import register
    from tests.test_delivery import student

    wrong = register.problems(name, uri, student(Path("/nowhere")), None)
    assert len(wrong) == 1 and ("no effect" if not name else "no name of a registered model") in wrong[0]
