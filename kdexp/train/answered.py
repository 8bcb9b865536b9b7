"""Labels of rows that nobody has labelled: those that a teacher's answers stand for, on disk beside its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from kdexp.heads.base import Head
from kdexp.tasks.base import Answered, Dataset
from kdexp.train import evaluate

FILE = "labels.{split}.safetensors"


def ask(model: nn.Module, split: Dataset, head: Head, place: evaluate.Place) -> Answered:
    """Return a split with the labels that a model's answers stand for, each (n, ...)."""
    return Answered(split, evaluate.collect(model, split, head, place, head.decided))


def keep(folder: Path, name: str, split: Answered) -> None:
    """Write the labels of a split into a stage's folder."""
    from safetensors.numpy import save_file

    labels = {label: np.ascontiguousarray(values) for label, values in split.labels.items()}
    save_file(labels, folder / FILE.format(split=name))


def read(folder: Path, name: str, split: Dataset) -> Answered:
    """Return a split with the labels that :func:`keep` has written.

    Raises:
        ValueError: they are of other rows.
    """
    from safetensors.numpy import load_file

    path = folder / FILE.format(split=name)
    labels = load_file(path)
    counts = {len(values) for values in labels.values()}
    if counts != {len(split)}:
        raise ValueError(f"{path} has labels of {sorted(counts)} rows, and the split has {len(split)}")
    return Answered(split, labels)
