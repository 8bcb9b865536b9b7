"""Where people keep their studies: folders with odd names, a store that a group shares, how much there is to keep."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from kdexp.common import sqlite
from kdexp.store.store import size
from tests.test_runs import results, toy

ODD = ["ws%2Fbranch", "a#b", "wh?t", "my study's", "Übung 1", 'say "so"', "50%", "a&b=c;d"]
"""Names that mean something else in an address, to a shell, or to nobody."""


@pytest.mark.parametrize("name", ODD)
def test_an_address_leads_back_to_its_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from sqlalchemy import create_engine, text

    place = tmp_path / name
    place.mkdir()
    monkeypatch.chdir(place)
    assert sqlite.path_of("sqlite:///multirun/mlflow.db") == place / "multirun" / "mlflow.db"
    assert sqlite.path_of(sqlite.address(place / "x.db")) == place / "x.db"
    engine = create_engine(sqlite.address(place / "x.db"))
    with engine.begin() as connection:
        connection.execute(text("create table t (a)"))
    engine.dispose()
    assert [path.name for path in place.iterdir()] == ["x.db"]
    with closing(sqlite.read_only(place / "x.db")) as connection:
        assert connection.execute("select name from sqlite_master").fetchall() == [("t",)]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("insert into t values (1)")


def test_other_databases_have_no_path():
    assert sqlite.path_of("postgresql://host/name") is None and sqlite.path_of("http://host") is None


ODDEST = 'ws%2Fbranch #1? Übung\'s "x" & 50%'


def tracked(bert: Path, csv: Path) -> list[str]:
    return [word for word in toy(bert, csv) if word != "tracking=off"]


def test_a_study_in_the_oddest_folder_under_a_groups_umask(
    kdexp, tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path
):
    """It runs, is tracked, and makes tables from MLflow; a colleague of the same group can read and write all of it."""
    place = tmp_path / ODDEST
    place.mkdir()
    place.chmod(0o2775)
    before = os.umask(0o002)
    try:
        words = ["-m", "objective=kd", "seed=1", "study=group", "runtime.checkpoint_s=0"]
        done = kdexp([*words, *tracked(tiny_bert_dir, tiny_csv_task)], cwd=place)
        assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
        tables = kdexp(["tables", "group", "source=mlflow"], cwd=place)
        assert tables.returncode == 0 and "kd" in tables.stdout, tables.stderr
        assert kdexp(["tracking", "sync"], cwd=place).stdout.strip().endswith("0 behind")
    finally:
        os.umask(before)
    strange = []
    for path in [place, *place.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        expected = 0o2775 if path.is_dir() else 0o664
        if mode != expected and not path.name.endswith((".so", ".pyc")):
            strange.append(f"{mode:o} {path.relative_to(place)}")
    assert not strange, "\n".join(strange)
    assert {path.name for path in tmp_path.iterdir()} == {tiny_csv_task.name, ODDEST}, "nothing lands beside it"
    assert {path.name for path in place.iterdir()} == {"multirun"}


@pytest.fixture
def wide_bert_dir(tiny_bert_dir: Path, tmp_path: Path) -> Path:
    """A BERT whose weights (5 MB) outweigh the records beside them."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    small = json.loads((tiny_bert_dir / "config.json").read_text())
    sizes = {"hidden_size": 160, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 4}
    folder = tmp_path / "wide_bert"
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=small["vocab_size"], max_position_embeddings=128, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert_dir).save_pretrained(folder)
    return folder


FACTOR = 1.3
"""What is estimated is right within this factor."""


@pytest.mark.parametrize("keep", ["final", pytest.param("all", marks=pytest.mark.slow)])
def test_the_disk_that_a_study_needs_is_said_before(
    keep: str, kdexp, wide_bert_dir: Path, tiny_csv_task: Path, tmp_path
):
    words = ["-m", "objective=hid_seq", "seed=1,2", "study=disk", f"runtime.keep_weights={keep}"]
    words += [*toy(wide_bert_dir, tiny_csv_task), "recipe.epochs=1", "teacher.recipe.epochs=1"]
    shown = kdexp([*words, "dry=true"])
    assert shown.returncode == 0, shown.stderr
    said = re.search(
        r"disk +about ([\d.]+) MB stay, ([\d.]+) MB more for each run under way; [\d.]+ .B are free", shown.stdout
    )
    assert said, shown.stdout
    done = kdexp(words)
    assert done.returncode == 0 and len(results(tmp_path, "disk")) == 2
    left = size(tmp_path / "multirun") / 1e6
    assert left / FACTOR < float(said[1]) < left * FACTOR and left > 5
    assert float(said[2]) > 5
    again = kdexp([*words, "dry=true"])
    assert "disk     nothing more is needed" in again.stdout
