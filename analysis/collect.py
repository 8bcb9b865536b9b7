"""Finished runs -> one tidy table: from MLflow (its SQLite file by SQL, else its client) or from the run folders.

The one module of the analysis that knows MLflow. Whatever the source, a run's numbers come out of one document, its
``result.json`` (in MLflow: an artifact of the run).
Parsed runs are kept in ``<study>/.analysis/`` so that the next call reads what is new only.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from kdexp.common import sqlite, tracked
from kdexp.common.redact import learn, public, without_secrets

from . import checks, points, records
from .cache import VERSION, Item, rows
from .select import telling


@dataclass
class Collected:
    """A study's finished runs: ``runs`` (a row a run), ``scores`` (run, who, split, metric, value), what is missing."""

    study: str
    folder: Path
    source: str
    runs: pd.DataFrame
    scores: pd.DataFrame
    missing: list[points.Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    order: dict[str, list[str]] = field(default_factory=dict)  # label -> its values in the order of the study's grid
    uri: str = ""  # of the tracking store, empty where folders were read
    by: tuple[str, ...] = ()  # dotted settings that tables show as columns

    def long(self) -> pd.DataFrame:
        """The tidy table, a row a score with all of its run; ``metric`` is the score's, ``chosen`` the task's."""
        return self.scores.merge(self.runs.rename(columns={"metric": "chosen"}), on="run", how="left", sort=False)


def collect(
    study: str,
    root: str | Path = "multirun",
    source: str = "mlflow",
    uri: str = "",
    *,
    incomplete: str = "refuse",
    extra: str = "leave",
    mixture: str = "refuse",
    by: str | Iterable[str] = "auto",
    cache: bool = True,
) -> Collected:
    """Collect a study; ``ValueError`` when it is unknown, or incomplete or a mixture and that is not allowed.

    ``extra``: ``leave`` takes only runs that the study's last grid (``study.json``) lists, ``include`` takes all.
    ``by``: dotted settings that may differ within a cell because tables show them; ``auto``: those that the grid in
    ``study.json`` varies, without which nothing says that a difference is meant.
    """
    folder = Path(root) / study
    notes: list[str] = []
    if source == "mlflow":
        uri = tracked.uri(root, uri)
        learn(uri)
        items, notes = _mlflow_items(study, uri, folder)
        said = f"MLflow ({public(uri)})"
    else:
        items, said = _folder_items(folder), f"result.json files under {folder}"
    runs, scores = rows(items, folder / ".analysis" / f"{source}-v{VERSION}" if cache and folder.is_dir() else None)
    listed = points.expected(folder)
    if listed is not None and extra == "leave" and len(runs):
        known = runs["run"].isin({point["id"] for point in listed})
        if (~known).any():
            notes.append(
                f"{int((~known).sum())} finished runs are not in the study's last grid and are left out (extra=include)"
            )
        runs = runs[known]
    runs = runs.sort_values(["task", "objective", "init", "seed", "name"], ignore_index=True)
    scores = scores[scores["run"].isin(set(runs["run"]))].reset_index(drop=True)
    missing = points.find_missing(folder, set(runs["run"]), source)
    if listed is None:
        notes.append(f"{folder / 'study.json'} is not there: which runs the study should have is not known")
    checks.complete(study, said, runs, missing, allow=incomplete == "allow")
    shown = tuple(by) if by != "auto" else telling(runs) if listed is not None and extra == "leave" else ()
    if by == "auto" and shown:
        notes.append(f"The grid varies {', '.join(shown)}: shown as columns (by=... chooses others, by=none none)")
    notes += checks.comparable(runs, allow=mixture == "allow", by=shown)
    order = {
        key: list(dict.fromkeys(str(p.get("labels", {}).get(key, "")) for p in listed or [])) for key in records.LABELS
    }
    return Collected(study, folder, said, runs, scores, missing, notes, order, uri if source == "mlflow" else "", shown)


# ------------------------------------------------------------------------------------------------------------ sources


def _folder_items(folder: Path) -> list[Item]:
    """Every ``<study>/<run>/result.json``."""
    if not folder.is_dir():
        near = (
            sorted(p.name for p in folder.parent.glob("*") if p.is_dir() and not p.name.startswith("."))
            if folder.parent.is_dir()
            else []
        )
        raise ValueError(f"there is no study folder {folder}; studies there: {', '.join(near) or 'none'}")
    out = []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path, "result.json")
            if entry.is_dir() and (stamp := _stamp(path)):
                out.append(Item(str(path), stamp, path.read_bytes))
    return out


def _stamp(path: Path) -> str:
    """Path, size and modification time; empty if the file is not there."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{path}:{found.st_size}:{found.st_mtime_ns}"


def _mlflow_items(study: str, uri: str, folder: Path) -> tuple[list[Item], list[str]]:
    """The finished runs of the experiment ``study`` that have a ``result.json``, and notes on the others."""
    path = sqlite.path_of(uri)
    found = _by_client(study, uri) if path is None else _by_sql(study, uri, path, folder)
    items, without = [], []
    for run, experiment, artifacts, name, ended in found:
        local = tracked.folder(artifacts if path is None else tracked.beside(path, artifacts))
        if local is None:
            place = f"{artifacts.rstrip('/')}/result.json"
            items.append(Item(f"mlflow run {run}", f"{uri}:{run}:{ended}", _downloader(uri, place), run, experiment))
        elif stamp := _stamp(local / "result.json"):
            items.append(Item(str(local / "result.json"), stamp, (local / "result.json").read_bytes, run, experiment))
        else:
            without.append(name)
    notes = (
        [f"{len(without)} MLflow runs have no result.json (first: {without[0]}) and are left out"] if without else []
    )
    return items, notes


def _by_sql(study: str, uri: str, path: Path, folder: Path) -> list[tuple[str, str, str, str, str]]:
    """(run, experiment, artifact uri, name, end time) straight from the SQLite file, opened read-only."""
    if not path.is_file():
        there = any(folder.glob("*/result.json"))
        remedy = (
            f"python -m kdexp.tracking sync root={shlex.quote(str(folder.parent))} brings the runs in"
            if there
            else "run the study with tracking on"
        )
        raise ValueError(f"the MLflow store {path} is not there; {remedy}, or say source=folders or uri=...")
    query = """
        select r.run_uuid, e.experiment_id, r.artifact_uri, r.name, coalesce(r.end_time, 0)
        from runs r join experiments e on e.experiment_id = r.experiment_id
        join tags k on k.run_uuid = r.run_uuid and k.key = 'kdexp.kind' and k.value = 'run'
        join tags s on s.run_uuid = r.run_uuid and s.key = 'kdexp.status' and s.value = 'finished'
        where e.name = ? and r.lifecycle_stage = 'active' order by r.end_time"""
    try:
        with closing(sqlite.read_only(path)) as connection:
            names = [
                row[0] for row in connection.execute("select name from experiments where lifecycle_stage = 'active'")
            ]
            rows = [tuple(str(value) for value in row) for row in connection.execute(query, (study,))]
    except sqlite3.Error as error:
        raise ValueError(f"the MLflow store {path} cannot be read ({error}); say source=folders") from None
    _known(study, names, uri)
    return rows  # type: ignore[return-value]


def _by_client(study: str, uri: str) -> list[tuple[str, str, str, str, str]]:
    """The same through MLflow's client, for servers and other databases."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its own 7 wait four minutes for a dead server
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(study)
        if experiment is None:
            _known(study, [one.name for one in client.search_experiments()], uri)
            return []
        out, token = [], None
        while True:
            page = client.search_runs(
                [experiment.experiment_id],
                "tags.`kdexp.kind` = 'run' and tags.`kdexp.status` = 'finished'",
                max_results=1000,
                page_token=token,
            )
            out += [
                (
                    run.info.run_id,
                    experiment.experiment_id,
                    run.info.artifact_uri,
                    run.info.run_name,
                    str(run.info.end_time),
                )
                for run in page
            ]
            token = page.token
            if not token:
                return out
    except MlflowException as error:
        raise ValueError(
            f"the MLflow server {public(uri)} cannot be asked ({without_secrets(str(error))}); say source=folders"
        ) from None


def _known(study: str, names: list[str], uri: str) -> None:
    """``ValueError`` if the store has no such experiment."""
    if study not in names:
        others = ", ".join(sorted(name for name in names if name != "Default")) or "none"
        raise ValueError(
            f"MLflow at {public(uri)} has no study {study!r} (it has: {others}); check the name, or say source=folders"
        )


def _downloader(uri: str, place: str) -> Callable[[], bytes]:
    """A function that fetches one artifact."""

    def load() -> bytes:
        import mlflow

        with tempfile.TemporaryDirectory() as folder:
            return Path(
                mlflow.artifacts.download_artifacts(artifact_uri=place, dst_path=folder, tracking_uri=uri)
            ).read_bytes()

    return load


def history(uri: str, runs: list[str]) -> list[tuple[str, str, int, float]]:
    """(MLflow run id, metric name, step, value) of every logged point of the given runs.

    By SQL from an SQLite store; other stores are asked run by run and metric by metric.
    """
    path = sqlite.path_of(uri)
    if path is not None:
        marks = ",".join("?" * len(runs))
        query = f"select run_uuid, key, step, value from metrics where run_uuid in ({marks}) and is_nan = 0"
        with closing(sqlite.read_only(path)) as connection:
            return [tuple(row) for row in connection.execute(query, runs)]  # type: ignore[misc]
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    return [
        (run, key, point.step, point.value)
        for run in runs
        for key in client.get_run(run).data.metrics
        for point in client.get_metric_history(run, key)
    ]
