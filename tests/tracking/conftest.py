"""A toy run on disk, an embedded store of one's own, a way to read what a store has."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from kdexp.tracking import Tracker, mlflow_store

LABELS = {"teacher": "big", "student": "l3", "objective": "kd", "mapping": "uniform", "init": "first", "task": "rte"}
RESULT = {
    "schema": 1,
    "run": {"id": "c" * 64, "name": "rte-kd-first-s1-cccccccc", "study": "toy", "seed": 1, "folder": "."},
    "labels": {
        "teacher": "big",
        "student": "l3",
        "objective": "kd",
        "mapping": "uniform",
        "init": "first",
        "task": "rte",
    },
    "task": {
        "metric": "accuracy",
        "data_hash": "d" * 64,
        "rows": {"train": 90, "validation": 20},
        "majority": {"validation": {"accuracy": 0.5}},
    },
    "best": {"epoch": 2, "step": 20, "heldout": {"accuracy": 0.6}},
    "scores": {"validation": {"accuracy": 0.75, "f1": 0.5}, "heldout": {"accuracy": 0.6}},
    "teacher": {"name": "big", "scores": {"validation": {"accuracy": 0.9}}, "parameters": 1000},
    "student": {"parameters": 300, "weights": None},
    "stages": [{"name": "distill.prediction", "key": "k", "reused": False, "seconds": 2.5, "steps": 20}],
    "cost": {"seconds": 3.5, "train_seconds": 2.5, "steps": 20},
    "finished": "2026-01-02T03:04:05",
}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh embedded store, made once: copying it is much cheaper than making it."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow_store.create(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(template: Path, tmp_path: Path) -> str:
    """An empty embedded store for this test: ``multirun/mlflow.db``."""
    path = tmp_path / "multirun" / "mlflow.db"
    path.parent.mkdir(exist_ok=True)
    shutil.copy(template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def config(uri: str) -> dict:
    """A resolved config of a run, with a store."""
    return {
        "study": "toy",
        "seed": 1,
        "selection": "heldout",
        "teacher": {"name": "big", "num_layers": 6},
        "student": {"name": "l3", "num_layers": 3},
        "init": {"name": "first"},
        "mapping": {"name": "uniform", "layers": [2, 4, 6]},
        "objective": {"name": "kd", "prediction": {"kd": {"weight": 1.0, "temperature": 4}}},
        "task": {"name": "rte"},
        "recipe": {"name": "default", "learning_rate": 5e-5},
        "runtime": {"dtype": "fp32", "device": "cpu"},
        "tracking": {"uri": uri, "every_s": 0.2, "timeout_s": 30, "system_metrics": False},
    }


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """``multirun/toy/rte-kd-first-s1-cccccccc``, empty."""
    folder = tmp_path / "multirun" / "toy" / "rte-kd-first-s1-cccccccc"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def finish() -> Callable[..., None]:
    """``finish(folder, state="finished", **status)`` writes what a run leaves at its end (and its config, if given)."""

    def write(folder: Path, state: str = "finished", config: dict | None = None, **status: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        times = {"started": "2026-01-02T03:00:00", "updated": "2026-01-02T03:04:06", "attempt": 1, "error": None}
        me = {"state": state, "pid": 2**22 + 1, "host": socket.gethostname()}
        (folder / "status.json").write_text(json.dumps({**me, **times, **status}))
        (folder / "run.log").write_text("a line\n")
        if state == "finished":
            (folder / "predictions").mkdir(exist_ok=True)
            (folder / "predictions" / "validation.safetensors").write_bytes(b"kept")
            (folder / "result.json").write_text(json.dumps(RESULT))
        if config is not None:
            (folder / ".hydra").mkdir(exist_ok=True)
            (folder / ".hydra" / "config.yaml").write_text(json.dumps(config))  # JSON is YAML

    return write


@pytest.fixture
def train(finish: Callable[..., None]) -> Callable[..., Tracker]:
    """``train(run_dir, config, steps)`` does what a run does: says that it is running, then logs its steps."""

    def run(folder: Path, config: dict, steps: Iterable[int] = range(1, 21)) -> Tracker:
        finish(folder, "running", config, pid=os.getpid())
        tracker = Tracker(folder, config["tracking"])
        for step in steps:
            values = {"train/loss": 1 / step, "heldout/accuracy": 0.5}
            tracker.log("distill.prediction", step, step // 10, values)
        return tracker

    return run


@pytest.fixture
def end(finish: Callable[..., None]) -> Callable[..., None]:
    """``end(tracker, state)`` does what a run does at its end: says how it was, then closes its tracker."""

    def close(tracker: Tracker, state: str, **status: object) -> None:
        finish(tracker.run_dir, state, **status)
        tracker.close()

    return close


class Shown:
    """What an embedded store has, read with plain SQL: nothing of MLflow between the test and the rows."""

    def __init__(self, uri: str) -> None:
        self.path = uri.removeprefix("sqlite:///")

    def rows(self, query: str) -> list[tuple]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def runs(self, kind: str = "run") -> dict[str, str]:
        """MLflow run id by kdexp name."""
        query = (
            "select n.value, n.run_uuid from tags n join tags k on k.run_uuid = n.run_uuid and k.key = 'kdexp.kind' "
            f"where n.key = 'kdexp.name' and k.value = '{kind}'"
        )
        found = self.rows(query)
        assert len(found) == len(dict(found)), f"shown more than once: {found}"
        return dict(found)

    def points(self) -> Counter:
        """How often each (metric, step) is there."""
        return Counter((key, step) for key, step in self.rows("select key, step from metrics"))

    def tags(self, run_id: str) -> dict[str, str]:
        return dict(self.rows(f"select key, value from tags where run_uuid = '{run_id}'"))

    def params(self, run_id: str) -> dict[str, str]:
        return dict(self.rows(f"select key, value from params where run_uuid = '{run_id}'"))

    def finals(self, run_id: str) -> dict[str, float]:
        return dict(self.rows(f"select key, value from latest_metrics where run_uuid = '{run_id}'"))

    def status(self, run_id: str) -> str:
        return self.rows(f"select status from runs where run_uuid = '{run_id}'")[0][0]


@pytest.fixture
def shown(uri: str) -> Shown:
    """The content of this test's store."""
    return Shown(uri)
