"""Collecting: both sources give the same table, incomplete and mixed studies are refused, thousands of runs are
fast."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from pathlib import Path

import pandas as pd
import pytest

from analysis import records
from analysis.collect import collect
from analysis.grid import build
from analysis.select import settings_columns
from tests.analysis.synthetic import grid, make_result, write_mlflow, write_points, write_run


def folders(root: Path, **options: object):
    return collect("quickstart", root, "folders", **options)  # type: ignore[arg-type]


def test_long_table_is_tidy(study: Path) -> None:
    found = folders(study)
    assert len(found.runs) == 54 and not found.missing
    long = found.long()
    wanted = {
        "run",
        "study",
        "teacher",
        "student",
        "objective",
        "mapping",
        "init",
        "task",
        "seed",
        "metric",
        "split",
        "value",
        "who",
        "seconds",
        "parameters",
        "data_hash",
        "selection",
        "chosen",
    }
    assert wanted <= set(long.columns)
    one = long[(long.task == "rte") & (long.objective == "kd") & (long.init == "first") & (long.seed == 0)]
    assert set(zip(one.who, one.split, strict=True)) >= {
        ("student", "validation"),
        ("teacher", "heldout"),
        ("majority", "validation"),
    }
    source = next(iter((study / "quickstart").glob("rte-kd-first-s0-*/result.json")))
    value = json.loads(source.read_text())["scores"]["validation"]["accuracy"]
    assert one.query("who == 'student' and split == 'validation' and metric == 'accuracy'").value.item() == value


def test_mlflow_and_folders_agree(study: Path) -> None:
    results = grid()[:6]
    write_points(study, "quickstart", results)
    uri = write_mlflow(study, "quickstart", results)
    found, own = collect("quickstart", study), folders(study)
    assert found.source == f"MLflow ({uri})"
    assert (found.runs.mlflow_run != "").all() and (own.runs.mlflow_run == "").all()
    columns = [name for name in own.runs.columns if name not in ("stamp", "mlflow_run", "mlflow_experiment")]
    pd.testing.assert_frame_equal(found.runs[columns], own.runs[columns])
    pd.testing.assert_frame_equal(
        *(one.scores.sort_values(list(one.scores.columns), ignore_index=True) for one in (found, own))
    )


def test_the_client_reads_what_sql_reads(study: Path) -> None:
    from analysis import collect as module

    uri = write_mlflow(study, "quickstart", grid()[:3])
    by_sql = module._by_sql("quickstart", uri, study / "mlflow.db", study / "quickstart")
    assert sorted(row[0] for row in module._by_client("quickstart", uri)) == sorted(row[0] for row in by_sql)
    assert len(by_sql) == 3
    with pytest.raises(ValueError, match="has no study 'other'"):
        module._by_client("other", uri)


def test_missing_runs_are_refused_with_their_state(study: Path) -> None:
    folder = study / "quickstart"
    one, two, three, four = sorted(path for path in folder.glob("rte-kd-*"))[:4]
    shutil.rmtree(one)
    for path, status in (
        (two, {"state": "failed", "error": "Traceback\nValueError: teacher below its floor"}),
        (three, {"state": "running", "updated": time.time() - 600}),
        (four, {"state": "interrupted", "error": None}),
    ):
        (path / "result.json").unlink()
        (path / "status.json").write_text(json.dumps(status))
    with pytest.raises(ValueError) as error:
        folders(study)
    text = str(error.value)
    assert "50 of 54 runs" in text and "incomplete=allow" in text
    assert f"{one.name}: not started" in text
    assert f"{two.name}: failed (ValueError: teacher below its floor)" in text
    assert f"{three.name}: running (last sign of life 10 min ago)" in text and f"{four.name}: interrupted" in text
    found = folders(study, incomplete="allow")
    assert len(found.runs) == 50 and len(found.missing) == 4


def test_a_run_on_disk_that_mlflow_lacks_is_named(study: Path) -> None:
    write_mlflow(study, "quickstart", grid()[1:])
    with pytest.raises(ValueError, match=r"finished \(on disk, but not in mlflow; python -m kdexp.tracking sync"):
        collect("quickstart", study)


def test_without_study_json_unfinished_folders_count(study: Path) -> None:
    (study / "quickstart" / "study.json").unlink()
    found = folders(study)
    assert not found.missing and "not known" in found.notes[0]
    path = next((study / "quickstart").glob("cola-*"))
    (path / "status.json").write_text('{"state": "failed", "error": "out of memory"}')
    (path / "result.json").unlink()
    with pytest.raises(ValueError, match="out of memory"):
        folders(study)


def test_runs_of_an_older_grid_are_left_out_unless_included(study: Path) -> None:
    write_points(study, "quickstart", grid(seeds=2))
    found = folders(study)
    assert len(found.runs) == 36 and "18 finished runs are not in the study's last grid" in found.notes[0]
    assert len(folders(study, extra="include").runs) == 54


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task__data_hash": "f" * 64}, "task rte: different data: .*ffffffffffff"),
        ({"selection": "validation"}, "different epoch selection: .*validation"),
        ({"runtime__dtype": "bf16"}, "different number formats: .*bf16"),
        ({"science__recipe": {"learning_rate": 1e-4}}, r"recipe.learning_rate = .*by=recipe.learning_rate"),
    ],
)
def test_mixtures_are_refused_unless_told(study: Path, changes: dict[str, object], words: str) -> None:
    result = make_result("quickstart", "rte", "kd", "first", 0, **changes)
    write_run(study, result)
    with pytest.raises(ValueError, match=words):
        folders(study, by=())
    (study / "quickstart" / "study.json").unlink()  # without the grid nothing says that a difference is meant
    with pytest.raises(ValueError, match=words):
        folders(study)
    assert any(note.startswith("mixture allowed") for note in folders(study, mixture="allow").notes)


def test_by_allows_what_the_table_shows(study: Path) -> None:
    write_run(study, make_result("quickstart", "rte", "kd", "first", 0, science__recipe={"learning_rate": 1e-4}))
    found = folders(study, by=["recipe.learning_rate"])
    assert set(settings_columns(found.runs, ["recipe.learning_rate"])["recipe.learning_rate"]) == {"5e-05", "0.0001"}
    with pytest.raises(ValueError, match="no run has such a setting"):
        settings_columns(found.runs, ["recipe.lr"])


def test_what_the_grid_varies_is_told_apart_without_being_asked(tmp_path: Path) -> None:
    """A rate that follows the task is no column; of two settings in step, one is; seeds of a teacher are none."""
    results = []
    for task, rate in (("rte", 1e-4), ("cola", 2e-5)):
        for seed in (1, 2):
            for sharing, weight in (("none", 1), ("sps1", 5)):
                result = make_result("quickstart", task, "pkd", "first", seed)
                result["science"]["recipe"]["learning_rate"] = rate * weight
                result["science"]["student"]["sharing"] = sharing
                result["science"]["teacher"]["seed"] = seed
                result["run"]["id"] = f"{len(results):064x}"
                result["run"]["name"] = f"r{len(results)}"
                results.append(result)
                write_run(tmp_path, result)
    write_points(tmp_path, "quickstart", results)
    found = folders(tmp_path)
    assert found.by == ("student.sharing",)
    assert any("The grid varies student.sharing" in note for note in found.notes)
    table = build(found)
    assert [row.labels for row in table.rows if row.kind == "method"] == [
        ("pkd", "first", "none"),
        ("pkd", "first", "sps1"),
    ]
    with pytest.raises(ValueError, match=r"by=recipe.learning_rate,student.sharing would show it"):
        folders(tmp_path, by=())


def test_a_run_logged_twice_counts_once(study: Path) -> None:
    results = grid()
    write_mlflow(study, "quickstart", [*results, results[0]])
    assert len(collect("quickstart", study).runs) == 54


def test_the_cache_reads_only_what_is_new_and_is_not_trusted_when_damaged(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from analysis import records

    first = folders(study)
    calls: list[str] = []
    original = records.read
    monkeypatch.setattr(records, "read", lambda text, where: calls.append(where) or original(text, where))
    pd.testing.assert_frame_equal(folders(study).long(), first.long())
    assert calls == []
    path = next((study / "quickstart").glob("rte-kd-first-s0-*/result.json"))
    changed = json.loads(path.read_text())
    changed["scores"]["validation"]["accuracy"] = 0.123456
    path.write_text(json.dumps(changed))
    assert (folders(study).scores.value == 0.123456).sum() == 1 and len(calls) == 1
    next((study / "quickstart" / ".analysis").glob("*/runs.parquet")).write_bytes(b"broken")
    assert len(folders(study).runs) == 54 and len(calls) == 55


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", r"is damaged \(Expecting .* run the study again"),
        ('{"schema": 9}', "reads schema 1"),
        ('{"schema": 1, "labels": {}}', "lacks run, science"),
        ("[]", r"is damaged \(it holds \[\], not an object"),
    ],
)
def test_a_damaged_result_names_its_file(study: Path, text: str, words: str) -> None:
    path = next((study / "quickstart").glob("rte-kd-*/result.json"))
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        folders(study)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("source", ["mlflow", "folders"])
def test_unknown_study_and_absent_store_say_what_there_is(study: Path, source: str) -> None:
    with pytest.raises(ValueError, match="source=folders" if source == "mlflow" else "studies there: quickstart"):
        collect("nothing", study, source)
    (study / "mlflow.db").write_bytes(b"not a database, but long enough to be looked at" * 10)
    with pytest.raises(ValueError, match="cannot be read"):
        collect("quickstart", study)


@pytest.mark.slow
def test_ten_thousand_runs_in_seconds(tmp_path: Path) -> None:
    """A store with 10,000 runs (schema by MLflow, rows copied by SQL): collected in seconds, again in less."""
    base = grid("big", seeds=1)
    write_mlflow(tmp_path, "big", base[:1])
    database = sqlite3.connect(tmp_path / "mlflow.db")
    run_columns = [row[1] for row in database.execute("pragma table_info(runs)")]
    template = dict(
        zip(run_columns, database.execute("select * from runs where name like '%-s0-%'").fetchone(), strict=True)
    )
    old_tags = database.execute("select key, value from tags where run_uuid = ?", (template["run_uuid"],)).fetchall()
    runs, tags, results = [], [], []
    for index in range(10_000):
        result = make_result(
            "big", f"t{index % 5}", ("finetune", "kd", "att_kl", "hid_seq")[index // 5 % 4], "first", index // 20
        )
        uuid = f"{index:032x}"
        place = tmp_path / "artifacts" / "big" / uuid
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(result))
        runs.append(
            tuple({**template, "run_uuid": uuid, "name": result["run"]["name"], "artifact_uri": str(place)}.values())
        )
        tags += [(key, value, uuid) for key, value in old_tags]
        results.append(result)
    database.execute("delete from tags")
    database.execute("delete from runs")
    database.executemany(f"insert into runs values ({','.join('?' * len(run_columns))})", runs)
    database.executemany("insert into tags (key, value, run_uuid) values (?, ?, ?)", tags)
    database.commit()
    database.close()
    write_points(tmp_path, "big", results)
    start = time.perf_counter()
    found = collect("big", tmp_path)
    first = time.perf_counter() - start
    start = time.perf_counter()
    again = collect("big", tmp_path)
    second = time.perf_counter() - start
    start = time.perf_counter()
    table = build(found)
    third = time.perf_counter() - start
    print(f"10,000 runs: {first:.1f} s, again {second:.1f} s, table {third:.1f} s")
    assert {row.cells[0].n for row in table.rows if row.kind == "method" and row.cells[0]} == {500}
    assert len(found.runs) == len(again.runs) == 10_000
    assert first < 20 and second < 10


def test_what_runs_have_computed_counts_a_shared_stage_once_and_no_waiting() -> None:
    rows = []
    for number, student in enumerate((10.0, 20.0)):
        made = grid(seeds=2)[number]
        teacher = {**made["stages"][0], "name": "teacher", "key": "shared", "reused": bool(number), "seconds": 100.0}
        own = {**made["stages"][0], "key": f"own{number}", "seconds": student}
        made["stages"], made["cost"]["seconds"] = [teacher, own], 500.0  # most of it waiting for the teacher
        rows.append(records.run_row(made)["work"])
    assert records.computed(rows) == 130
