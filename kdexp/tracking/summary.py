"""A study's own run in MLflow, and a run for each of its cells, from what the analysis says of it.

A *cell* is a setting on a task, over its seeds; its metrics are aggregates and get a point whenever they have changed,
with the number of runs as the step. Who makes the aggregates: entry points ``kdexp.summary``, functions of a study's
folder (see ``analysis/summary.py``), since nothing here knows statistics.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdexp.common import beside
from kdexp.common.results import RESULT
from kdexp.common.status import state
from kdexp.config.identity import digest
from kdexp.tracking import pages
from kdexp.tracking.describe import TAG_LENGTH, clean

if TYPE_CHECKING:
    from kdexp.tracking.mlflow_store import Store

NOTE = "mlflow.note.content"
"""MLflow's pages show this tag as the description of a run, or of an experiment."""
MARK = "kdexp.summarised"
"""Tag of a study's run: which results it speaks of."""
BATCH = 900


def show(store: Store, study_dir: Path, run_folders: list[Path]) -> bool:
    """Bring a study's own run and its cells up to date; False when nothing has finished since the last time.

    Raises:
        Exception: the store's; nothing is lost by it, the next call says it all again.
    """
    finished = {path.name: (path / RESULT).stat().st_mtime_ns for path in run_folders if (path / RESULT).exists()}
    makers = beside.offers("kdexp.summary")
    if not finished or not makers:
        return False
    with store.lock(study_dir):
        experiment, parent = store.study(study_dir.name, study_dir)
    mark = digest(finished)
    if store.client.get_run(parent).data.tags.get(MARK) == mark:
        return False
    for maker in makers:
        try:
            said = maker.load()(study_dir)
        except ValueError:  # nothing of it can be read: the analysis says so to whoever asks it
            continue
        states = {f"runs/{name}": float(count) for name, count in Counter(map(state, run_folders)).items()}
        _log(store, parent, {**said["metrics"], **states}, {NOTE: said["text"]}, len(finished))
        for name, text in said["files"].items():
            store.client.log_text(parent, text, name)
        store.client.set_experiment_tag(experiment, NOTE, said["purpose"][:TAG_LENGTH])
        store.client.set_experiment_tag(experiment, pages.TAG, pages.view(said["varied"], round(time.time() * 1000)))
        for cell in said["cells"]:
            run = _cell(store, study_dir, experiment, parent, cell["labels"])
            numbers = {f"score/{name}": value for name, value in cell["metrics"].items()}
            _log(store, run, numbers, {"kdexp.group": cell["group"]}, int(cell["metrics"]["n"]))
    store.client.set_tag(parent, MARK, mark)
    return True


def _cell(store: Store, study_dir: Path, experiment: str, parent: str, labels: dict[str, str]) -> str:
    """Return the run of a cell, created when missing; it has ended before it begins, as its study has."""
    name = " ".join(value for key, value in labels.items() if key != "metric")
    with store.lock(study_dir):
        run = store.find(experiment, "cell", name)
        if run is None:
            tags = {
                "mlflow.parentRunId": parent,
                "kdexp.kind": "cell",
                "kdexp.name": name,
                "kdexp.study": study_dir.name,
            }
            run = store.client.create_run(experiment, run_name=name, tags=tags)
            store.client.log_batch(run.info.run_id, params=_params(labels))
            store.client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _params(labels: dict[str, str]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(clean(name), value) for name, value in labels.items()]


def _log(store: Store, run: str, metrics: dict[str, float], tags: dict[str, str], step: int) -> None:
    from mlflow.entities import Metric, RunTag

    now = round(time.time() * 1000)
    points = [Metric(clean(name), value, now, step) for name, value in metrics.items()]
    labels = [RunTag(name, value[:TAG_LENGTH]) for name, value in tags.items()]
    for begin in range(0, len(points), BATCH):
        store.client.log_batch(run, metrics=points[begin : begin + BATCH], tags=labels)
