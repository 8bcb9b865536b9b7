"""Predictions that a run kept: ``<run>/predictions/<split>.safetensors`` (or ``.npz``) with logits, labels, ids.

``logits`` (examples, classes) in half precision, ``labels`` (examples,), ``ids`` (examples,) whole numbers that name
the examples, so that two runs can be compared example by example whatever order they were read in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.examples import contributions

NAMES = ("logits", "labels", "ids")


class MissingPredictions(ValueError):
    """A run kept no predictions of a split; the message is one sentence."""


@dataclass(frozen=True)
class Predictions:
    """One run on one split, sorted by ``ids``."""

    where: Path
    logits: np.ndarray
    labels: np.ndarray
    ids: np.ndarray


def read(run_folder: Path, split: str = "validation") -> Predictions:
    """A run's predictions.

    Raises:
        MissingPredictions: there are none.
        ValueError: the file is damaged or lacks something; it is named.
    """
    stem = run_folder / "predictions" / split
    path = next((p for p in (stem.with_suffix(".safetensors"), stem.with_suffix(".npz")) if p.is_file()), None)
    if path is None:
        raise MissingPredictions(
            f"{stem}.safetensors is not there: the run kept no predictions of {split}, and without them nothing can be "
            "said about new examples."
        )
    arrays = _arrays(path)
    lacking = [name for name in NAMES if name not in arrays]
    if lacking:
        raise ValueError(f"{path} lacks {', '.join(lacking)}; it needs {', '.join(NAMES)}")
    logits, labels, ids = (arrays[name] for name in NAMES)
    if not len(logits) == len(labels) == len(ids) or len(np.unique(ids)) != len(ids):
        sizes = f"{len(logits)} logits, {len(labels)} labels, {len(np.unique(ids))} different ids of {len(ids)}"
        raise ValueError(f"{path} has {sizes}; every example needs one of each")
    order = np.argsort(ids)
    return Predictions(path, np.asarray(logits, dtype=np.float64)[order], labels[order], ids[order])


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file; neither format can run code."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        from safetensors.numpy import load_file

        return dict(load_file(path))
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({error}); run the study again to write it anew") from error


def scores_by_example(runs: list[Predictions], metric: str) -> np.ndarray:
    """Contributions to ``metric`` (x 100), (runs, examples); rows are runs, columns the same examples in all of them.

    Raises:
        ValueError: two runs do not have the same examples with the same labels.
    """
    first = runs[0]
    for one in runs[1:]:
        if not np.array_equal(one.ids, first.ids) or not np.array_equal(one.labels, first.labels):
            raise ValueError(
                f"{one.where} and {first.where} do not hold the same examples ({len(one.ids)} and {len(first.ids)}); "
                "only runs on the same data can be compared by examples"
            )
    return np.stack([contributions(metric, one.logits, one.labels) for one in runs])
