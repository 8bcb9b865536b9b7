"""Parsed results, kept: the next call on a study of thousands of runs reads only what is new. A copy, never the
truth."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kdexp.common import files

from . import records

VERSION = 6  # raise when the meaning of a row changes


@dataclass(frozen=True)
class Item:
    """A result that can be read: where, a stamp that changes with its content, and MLflow's ids if it has any."""

    where: str
    stamp: str
    load: Callable[[], bytes]
    mlflow_run: str = ""
    mlflow_experiment: str = ""


def rows(items: list[Item], cache: Path | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run rows and score rows of ``items``, one row a run id (the one that finished last: nothing counts twice)."""
    runs, scores = _load(cache)
    wanted = {item.stamp for item in items}
    runs, scores = runs[runs["stamp"].isin(wanted)], scores[scores["stamp"].isin(wanted)]
    known = set(runs["stamp"])
    fresh = [item for item in items if item.stamp not in known]
    if fresh:
        new_runs, new_scores = _parse(fresh)
        runs = pd.concat([runs, new_runs], ignore_index=True) if len(runs) else new_runs
        scores = pd.concat([scores, new_scores], ignore_index=True) if len(scores) else new_scores
        if cache is not None:
            _save(cache, runs, scores)
    if not len(runs):
        return pd.DataFrame(columns=["run", "name", "task", "objective", "init", "seed"]), scores.drop(columns="stamp")
    runs = runs.sort_values("finished", kind="stable").drop_duplicates("run", keep="last")
    scores = scores[scores["stamp"].isin(set(runs["stamp"]))]
    return runs, scores.drop(columns="stamp")


def _parse(items: list[Item]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read and flatten; downloads run side by side, local files one after the other."""
    remote = any(item.where.startswith("mlflow run") for item in items)
    run_rows, score_rows = [], []
    with ThreadPoolExecutor(8 if remote else 1) as pool:
        for item, text in zip(items, pool.map(lambda item: item.load(), items), strict=True):
            result = records.read(text, item.where)
            mlflow = {"mlflow_run": item.mlflow_run, "mlflow_experiment": item.mlflow_experiment}
            run_rows.append({**records.run_row(result), "stamp": item.stamp, **mlflow})
            score_rows += [(item.stamp, *score) for score in records.score_rows(result)]
    return pd.DataFrame(run_rows), pd.DataFrame(score_rows, columns=list(_empty()[1].columns))


def _empty() -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.DataFrame(columns=["stamp"]), pd.DataFrame(columns=["stamp", "run", "who", "split", "metric", "value"])


def _load(cache: Path | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The kept rows; empty frames when there are none or they cannot be read."""
    try:
        if cache is not None and cache.is_dir():
            runs, scores = pd.read_parquet(cache / "runs.parquet"), pd.read_parquet(cache / "scores.parquet")
            if set(runs["stamp"]) == set(scores["stamp"]):
                return runs, scores
    except (OSError, ValueError, KeyError):
        pass
    return _empty()


def _save(cache: Path, runs: pd.DataFrame, scores: pd.DataFrame) -> None:
    """Write both frames atomically; a folder that cannot be written only costs the next call its time."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for name, frame in (("scores", scores), ("runs", runs)):
            with files.fresh(cache / f"{name}.parquet") as aside:
                frame.to_parquet(aside, index=False)
    except OSError:
        pass
