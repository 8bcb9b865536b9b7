"""A study as a whole in MLflow: real toy runs, a real store, read back by SQL."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

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


def test_a_study_is_summarised_once_and_again_when_a_run_is_new(study: Path, shown) -> None:
    count = "select count(*) from metrics where key = 'score/mean'"
    before = shown.rows(count)
    assert sync(study, say=lambda line: None) == 0 and shown.rows(count) == before
    next((study / "four").glob("*/result.json")).touch()
    assert sync(study, say=lambda line: None) == 0 and shown.rows(count) > before
