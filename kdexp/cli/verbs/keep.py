"""``python -m kdexp keep STUDY``: the weights of a study's best student, where the study has kept none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kdexp.common import results
from kdexp.common.arguments import JSON, STUDY, Command, Key, print_json
from kdexp.common.problems import ConfigError
from kdexp.config.identity import ROOT


def keep(study: str, task: str, json: bool) -> int:
    """Carry the study's best run out once more, with its weights kept, and say how they are used.

    Best is the run with the highest score on the rows that chose its epoch (held-out ones by default), so that its
    score on validation stays one that nobody has chosen by. The run goes to a study of its own, STUDY_kept, and takes
    its teacher from the store; the same command again finds it finished.

    Raises:
        ValueError: there is no such run, or it cannot be carried out.
        RuntimeError: it came out otherwise than before.
    """
    folder = Path(ROOT) / study
    scored, several = _best(folder, task)
    again = _again(folder / scored["run"]["name"], scored, f"{study}_kept")
    metric, value = _score(scored)
    if _score(again) != (metric, value):
        raise RuntimeError(
            f"{again['run']['folder']} has {metric} {_score(again)[1]}, {folder / scored['run']['name']} had {value}: "
            "another machine, number of threads or version of PyTorch computes otherwise."
        )
    kept, here = Path(again["student"]["weights"]), Path.cwd()
    weights = str(kept.relative_to(here) if kept.is_relative_to(here) else kept)
    if json:
        print_json({"run": again["run"]["folder"], "weights": weights, "metric": metric, "validation": value})
        return 0
    size = again["student"]["size_bytes"] / 1e6
    print(f"kept     {again['run']['folder']}, the best of {several} runs on {_place(scored)}")
    print(f"         {metric} {100 * value:.1f} on validation; {size:.0f} MB in {weights}")
    print(f"use it   {_use(folder / scored['run']['name'], weights)}")
    return 0


def _score(result: Mapping[str, Any]) -> tuple[str, float]:
    found = results.score(dict(result))
    assert found is not None, "only runs with a score are compared"
    return found


def _place(result: Mapping[str, Any]) -> str:
    """What a run is chosen by."""
    chosen = "heldout" in result["scores"] and result["selection"] == "heldout"
    return "held-out rows" if chosen else "validation"


def _best(folder: Path, task: str) -> tuple[dict[str, Any], int]:
    """The best finished run of a study, and of how many."""
    read = [results.read(path.parent) for path in sorted(folder.glob("*/result.json"))]
    known = [result for result in read if result is not None and results.score(result) is not None]
    tasks = sorted({result["labels"]["task"] for result in known})
    if not known:
        raise ValueError(f"{folder} has no finished run with a score: run the study first.")
    if task and task not in tasks:
        raise ValueError(f"task={task} is not in {folder}: it has {', '.join(tasks)}.")
    if not task and len(tasks) > 1:
        raise ValueError(f"{folder} has several tasks: say which by task=, one of {', '.join(tasks)}.")
    of_task = [result for result in known if not task or result["labels"]["task"] == task]

    def rank(result: dict[str, Any]) -> float:
        split = "heldout" if _place(result) == "held-out rows" else "validation"
        return float(result["scores"][split][result["task"]["metric"]])

    return max(of_task, key=rank), len(of_task)


def _again(run_dir: Path, before: Mapping[str, Any], study: str) -> dict[str, Any]:
    """The result of a run with its weights: its own, or that of the same run in another study."""
    kept = before["student"]["weights"]
    if kept is not None and Path(kept).is_dir():
        return dict(before)
    from kdexp.run import execute, spec

    config = _config(run_dir)
    config["study"] = study
    config["runtime"] |= {"keep_weights": "final", "threads": before["runtime"]["threads"]}
    words = yaml.safe_load((run_dir / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))
    try:
        run = spec.make(config, [*words, f"study={study}", "runtime.keep_weights=final"])
    except ConfigError as error:
        raise ValueError(" ".join(error.problems)) from error
    if run.id != before["run"]["id"]:
        raise ValueError(f"{run_dir} was carried out by another version of kdexp: run its study again first.")
    return execute.execute(run)


def _use(run_dir: Path, weights: str) -> str:
    """The line of Python that loads a student."""
    from kdexp.common.registry import build
    from kdexp.delivery.card import PIPELINES

    auto_class = build(_config(run_dir)["task"]).head.auto_class
    if auto_class not in PIPELINES:
        return f"transformers.{auto_class}.from_pretrained({weights!r})"
    cut = ", truncation=True" if PIPELINES[auto_class] == "text-classification" else ""
    return f"transformers.pipeline({PIPELINES[auto_class]!r}, model={weights!r}{cut})"


def _config(run_dir: Path) -> dict[str, Any]:
    """The configuration that a run was carried out with."""
    config: dict[str, Any] = yaml.safe_load((run_dir / ".hydra" / "config.yaml").read_text(encoding="utf-8"))
    return config


VERB = Command(
    "The best run of a study once more, with its weights, and the line that uses them.",
    keep,
    {
        "study": dataclasses.replace(STUDY, bare=True),
        "task": Key("which task's, in a study of several", ""),
        "json": JSON,
    },
)
