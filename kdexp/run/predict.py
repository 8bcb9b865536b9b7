"""What a saved model answers on rows that nobody has labelled, as the field's leaderboard takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from kdexp.common import machine, results
from kdexp.common.problems import ConfigError
from kdexp.models import build as models
from kdexp.models import config_json, source, weights
from kdexp.models.families.base import family
from kdexp.tasks.base import DataContext, Task
from kdexp.tasks.labels import check_labels
from kdexp.train import evaluate

LONGEST = 512
"""Tokens after which an input is cut where neither model nor tokenizer says anything."""
UNSAID = 10**9
"""Tokenizers that do not know write a larger number."""


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
    asked: Callable[[int, int, int], None]
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
    longest = None if wrong else _longest(folder)
    if asked.max_length and longest and asked.max_length > longest:
        reads = f"the {longest} tokens that model={folder} reads"
        wrong.append(f"max_length={asked.max_length} is above {reads}: lower it.")
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
    place = _Place(torch.device(machine.decide_device(asked.device)), show)
    model = models.restore(asked.folder, head).to(place.device)
    answers = evaluate.collect(model, data, head, place, head.predictions)
    return asked.task.sheet(data.gather(answers), data, asked.split)


def context(asked: Asked) -> DataContext:
    """Return what a task is told that is read as a saved model reads it; nothing of train is held out."""
    said, length = config_json.read(asked.folder), asked.max_length or _longest(asked.folder) or LONGEST
    return DataContext(
        model=str(asked.folder), options={"local_files_only": True}, vocab_size=said.get("vocab_size"),
        positions=source.positions(said), max_length=length, root=asked.root, heldout=0.0, cache=asked.cache,
    )  # fmt: skip


def _longest(folder: Path) -> int | None:
    """Return the tokens that a model was trained to read, or has positions for; None = nothing says it.

    Raises:
        ValueError: its tokenizer's configuration is damaged.
    """
    path, positions = folder / "tokenizer_config.json", source.positions(config_json.read(folder))
    try:
        trained = json.loads(path.read_text()).get("model_max_length") if path.is_file() else None
        said = [int(length) for length in (trained, positions) if length is not None]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): save the tokenizer again") from error
    return min((length for length in said if length < UNSAID), default=None)


def of_run(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the folder of a run's student and the settings of its task; of a saved model, its folder and None.

    Raises:
        ValueError: the run has kept no weights, or its folder is not whole.
    """
    if not folder.is_dir():
        raise ValueError(f"model={folder} is no folder: give that of a run, of a saved model, or of an exported form")
    result, path = results.read(folder), folder / ".hydra" / "config.yaml"
    if result is None:
        return folder, None
    if not path.is_file():
        raise ValueError(f"model={folder} is a run without its configuration: {path} is missing")
    kept = result["student"].get("weights")
    if kept is None or not Path(kept).is_dir():
        raise ValueError(
            f"model={folder}: the run has kept no weights ({kept or 'runtime.keep_weights=none'}): "
            "kdexp keep STUDY makes those of a study's best run again; runtime.keep_weights=final keeps those of "
            "new runs"
        )
    return Path(kept), yaml.safe_load(path.read_text())["task"]
