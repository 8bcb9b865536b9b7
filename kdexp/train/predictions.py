"""What a model answered on the examples of a split, kept for whoever compares two runs example by example.

``predictions/<split>.safetensors`` holds the head's predictions by their names (``logits`` (n, C) for classes), the
labels by theirs (``target.label`` (n,)), what each example contributes to a metric where a task says so
(``by_example.f1`` (n,)), and ``ids`` (n,), the examples' positions in the split. Where examples differ in length the
rows stand one after the other, and ``<name>.lengths`` (n,) says how long each is. Beside it lies, as JSON, what the
field's own tools read (:meth:`kdexp.tasks.base.Goal.published`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdexp.common import files
from kdexp.heads.batch import Predictions, Targets
from kdexp.tasks.base import Goal

FOLDER = "predictions"
IDS = "ids"
BY_EXAMPLE = "by_example"


def write(
    folder: Path, split: str, predictions: Predictions, targets: Targets, goal: Goal, scores: Mapping[str, float]
) -> None:
    """Write what a model answered on a split.

    Half precision if the scores are the same numbers with it, else as it is: whoever computes them from the file gets
    exactly what the run reports. Labels that are no numbers (texts) are not written.

    Args:
        folder: of the stage.
        split: its name.
        predictions: by name, arrays (n, ...) or lists of n arrays.
        targets: the labels, likewise.
        goal: judges them.
        scores: what it says of them.
    """
    from safetensors.numpy import save_file

    halved = {name: _halved(values) for name, values in predictions.items()}
    if goal.evaluate(halved, targets) != scores:
        halved = dict(predictions)
    labels = {f"target.{name}": values for name, values in targets.items() if _numbers(values)}
    shares = {f"{BY_EXAMPLE}.{name}": values for name, values in goal.contributions(predictions, targets).items()}
    arrays = {IDS: np.arange(len(next(iter(predictions.values()))), dtype=np.int32)}
    for name, values in [*halved.items(), *labels.items(), *shares.items()]:
        arrays |= _flat(name, values)
    with files.fresh(folder / FOLDER / f"{split}.safetensors") as path:
        save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, path)
    for end, document in goal.published(predictions, targets).items():
        files.write_json(folder / FOLDER / f"{split}{end}", document)


def _halved(values: Any) -> Any:
    """Round float arrays to half precision."""
    if not isinstance(values, np.ndarray):
        return [_halved(np.asarray(value)) for value in values]
    return values.astype(np.float16) if values.dtype.kind == "f" else values


def _numbers(values: Any) -> bool:
    return all(np.asarray(value).dtype.kind in "biuf" for value in values)


def _flat(name: str, values: Any) -> Mapping[str, np.ndarray]:
    if isinstance(values, np.ndarray):
        return {name: values}
    rows = [np.asarray(value) for value in values]
    return {name: np.concatenate(rows), f"{name}.lengths": np.array([len(row) for row in rows], dtype=np.int32)}
