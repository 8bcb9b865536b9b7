"""What a saved model answers on rows that nobody has labelled, as the field's leaderboard takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from kdexp.common import machine
from kdexp.common.problems import ConfigError
from kdexp.models import build as models
from kdexp.models import config_json, source, weights
from kdexp.models.families.base import family
from kdexp.tasks.base import DataContext, Task
from kdexp.tasks.labels import check_labels
from kdexp.train import evaluate

LONGEST = 512
"""Tokens after which an input is cut where neither model nor tokenizer says anything."""


@dataclass(frozen=True)
class Asked:
    """What is predicted.

    Attributes:
        folder: of the saved model, with its tokenizer.
        task: what it answers.
        split: name of the rows.
        file: where the rows are; None = where the task's data are.
        root: local data root, or None.
        cache: folder for what is fetched.
        device: cpu, cuda, or auto.
        max_length: tokens after which an input is cut; None = as the model was trained.
    """

    folder: Path
    task: Task
    split: str
    file: Path | None
    root: str | None
    cache: Path
    device: str = "auto"
    max_length: int | None = None


@dataclass(frozen=True)
class _Place:
    """Where the model computes: in full precision."""

    device: torch.device
    cast: torch.dtype | None = None


def problems(asked: Asked, plain: bool = True) -> list[str]:
    """Return everything that stops a prediction, as sentences; nothing is loaded.

    Args:
        plain: the folder has weights as transformers reads them; else only its configuration is looked at.
    """
    folder, task, wrong = asked.folder, asked.task, list[str]()
    if not (folder / "config.json").is_file():
        wrong.append(f"model={folder} has no config.json: give the folder of a run, or of a saved model.")
    elif plain:
        wrong += [f"model={folder}: {text}" for text in weights.problems(folder) + config_json.problems(folder)]
        wrong += _other_answers(folder, task) if not wrong else []
    else:
        wrong += check_labels(config_json.labels(config_json.read(folder)), task, f"model {folder}", teaches=False)
    if asked.file is not None and not asked.file.is_file():
        wrong.append(f"data={asked.file} is no file.")
    if asked.root is not None and not Path(asked.root).expanduser().is_dir():
        wrong.append(f"root={asked.root} is no folder: it holds glue/ and others (KDEXP_DATA).")
    return wrong


def _other_answers(folder: Path, task: Task) -> list[str]:
    """Say that a model answers something else than a task asks."""
    if "vectors" in task.head.abilities:
        return [f"model={folder} answers with vectors, no labels: read it with sentence-transformers, or AutoModel."]
    said, shapes = config_json.read(folder), weights.shapes(folder) or {}
    wrong = check_labels(config_json.labels(said), task, f"model {folder}", teaches=False)
    head = task.head.weights or family(str(said.get("model_type"))).head
    if not any(name.startswith(f"{head}.") for name in shapes):
        wrong.append(
            f"model={folder} has no weights of what task={task.name} asks ({head}.*): its head is of another kind, or "
            "it was not trained on this task."
        )
    return wrong


def predict(asked: Asked, show: Callable[[int, int, int], None]) -> tuple[str, str]:
    """Return a file's name and text with what the model answers.

    Args:
        asked: what is predicted.
        show: told the batches that are done, how many there are, and the rows of the last one.

    Raises:
        ConfigError: everything that stops it.
        ValueError: rows or the tokenizer cannot be used.
    """
    wrong = problems(asked)
    if wrong:
        raise ConfigError(wrong)
    data, head = asked.task.unseen(context(asked), asked.split, asked.file), asked.task.head
    place = _Place(torch.device(machine.decide_device(asked.device)))
    model = models.restore(asked.folder, head).to(place.device)
    answers = evaluate.collect(model, data, head, place, head.predictions, show=show)
    return asked.task.sheet(data.gather(answers), data, asked.split)


def context(asked: Asked) -> DataContext:
    """Return what a task is told that is read as a saved model reads it; nothing of train is held out."""
    said = config_json.read(asked.folder)
    path, positions = asked.folder / "tokenizer_config.json", source.positions(said)
    trained = json.loads(path.read_text()).get("model_max_length") if path.is_file() else None
    longest = min(int(length) for length in (trained, positions, LONGEST) if length is not None)
    return DataContext(
        model=str(asked.folder), options={"local_files_only": True}, vocab_size=said.get("vocab_size"),
        positions=positions, max_length=asked.max_length or longest, root=asked.root, heldout=0.0, cache=asked.cache,
    )  # fmt: skip


def of_run(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the folder of a run's student and the settings of its task; of a saved model, its folder and None.

    Raises:
        ValueError: the run has kept no weights.
    """
    if not (folder / "result.json").is_file():
        return folder, None
    result = json.loads((folder / "result.json").read_text())
    kept = result["student"]["weights"]
    if kept is None or not Path(kept).is_dir():
        raise ValueError(
            f"model={folder}: the run has kept no weights ({kept or 'runtime.keep_weights=none'}): "
            "kdexp keep STUDY makes those of a study's best run again; runtime.keep_weights=final keeps those of "
            "new runs"
        )
    config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    return Path(kept), config["task"]
