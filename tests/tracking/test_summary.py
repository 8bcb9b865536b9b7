"""A study as a whole in MLflow: real toy runs, a real store, read back by SQL."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pandas as pd
import pytest

from kdexp.tracking import pages
from kdexp.tracking.sync import sync
from tests.conftest import RunProgram
from tests.test_runs import results, toy


@pytest.fixture
def study(uri: str, kdexp: RunProgram, tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path) -> Path:
    """Two objectives, two seeds, in the store of ``shown``."""
    words = [word for word in toy(tiny_bert_dir, tiny_csv_task) if word != "tracking=off"]
    done = kdexp(["-m", *words, "objective=kd,finetune", "seed=1,2", "study=four"])
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path / "multirun"


def test_cells_and_the_study_itself_are_shown(study: Path, shown) -> None:
    found = results(study.parent, "four").values()
    by_objective: dict[str, list[float]] = {}
    for result in found:
        score = 100 * result["scores"]["validation"][result["task"]["metric"]]
        by_objective.setdefault(result["labels"]["objective"], []).append(score)
    rows = shown.rows(
        "select k.value, m.key, m.value from latest_metrics m join tags k on k.run_uuid = m.run_uuid "
        "join tags c on c.run_uuid = m.run_uuid "
        "where k.key = 'kdexp.name' and c.key = 'kdexp.kind' and c.value = 'cell'"
    )
    cells: dict[str, dict[str, float]] = {}
    for name, key, value in rows:
        cells.setdefault(name, {})[key] = value
    assert set(cells) == {"kd first toy", "finetune first toy"}
    for objective, scores in by_objective.items():
        cell = cells[f"{objective} first toy"]
        assert cell["score/mean"] == pytest.approx(statistics.mean(scores)) and cell["score/n"] == 2
        assert cell["score/std"] == pytest.approx(statistics.stdev(scores))
    (parent,) = shown.rows("select run_uuid from tags where key = 'kdexp.kind' and value = 'study'")
    tags = shown.tags(parent[0])
    assert "| objective" in tags["mlflow.note.content"] and "majority answer" in tags["mlflow.note.content"]
    metrics = dict(shown.rows(f"select key, value from latest_metrics where run_uuid = '{parent[0]}'"))
    assert metrics["runs/finished"] == 4 and metrics["best/toy"] == pytest.approx(
        max(statistics.mean(scores) for scores in by_objective.values())
    )
    assert metrics["mean/toy"] == pytest.approx(
        statistics.mean(score for scores in by_objective.values() for score in scores)
    )
    kept = study / "mlartifacts" / "four" / parent[0] / "artifacts"
    assert "| kd" in (kept / "scores.md").read_text() and "<td" in (kept / "scores.html").read_text()
    frame = pd.read_csv(kept / "scores.csv")
    cell = frame[(frame["objective"] == "kd") & (frame["task"] == "toy")]["mean"].item()
    assert cell == pytest.approx(statistics.mean(by_objective["kd"]))
    (experiment,) = shown.rows("select experiment_id from experiments where name = 'four'")
    page = dict(shown.rows(f"select key, value from experiment_tags where experiment_id = {experiment[0]}"))
    assert page["mlflow.experimentKind"] == "custom_model_development" and page["mlflow.note.content"]
    view = json.loads(json.loads(page["mlflow.sharedViewState.kdexp"])["state"])
    assert view["compareRunCharts"][1]["selectedParams"] == ["objective", "seed"], "what differs, and nothing else"
    where = view["searchFilter"].replace("tags.`kdexp.kind` = ", "")
    assert where == "'run'" and view["selectedColumns"][0] == view["orderByKey"] == "metrics.`score`"
    ((name, address),) = pages.addresses("http://127.0.0.1:5000", study / "mlflow.db")
    assert name == "four" and f"/experiments/{experiment[0]}/runs?" in address and "viewStateShareKey=kdexp" in address


def test_a_study_is_summarised_once_and_again_when_a_run_is_new(study: Path, shown) -> None:
    count = "select count(*) from metrics where key = 'score/mean'"
    before = shown.rows(count)
    assert sync(study, say=lambda line: None) == 0 and shown.rows(count) == before
    next((study / "four").glob("*/result.json")).touch()
    assert sync(study, say=lambda line: None) == 0 and shown.rows(count) > before
