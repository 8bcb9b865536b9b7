"""Predictions that a run kept: ``<run>/predictions/<split>.safetensors``, as ``kdexp.train.predictions`` writes it.

``logits`` (examples, classes), ``target.label`` (examples,), ``ids`` (examples,) whole numbers that name the examples,
so that two runs can be compared example by example whatever order they were read in. A task whose answers are no
classes says itself what each example contributes to a metric, ``by_example.f1`` (examples,).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .examples import contributions

NAMES = ("logits", "target.label", "ids")
BY_EXAMPLE = "by_example."


class MissingPredictions(ValueError):
    """A run kept no predictions of a split; the message is one sentence."""


@dataclass(frozen=True)
class Predictions:
    """One run on one split, sorted by ``ids``.

    Attributes:
        where: the file.
        logits, labels: of classes or scores; empty where the task says itself what its examples contribute.
        ids: of the examples.
        shares: what each example contributes to a metric, by its name; {} for classes and scores.
    """

    where: Path
    logits: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    shares: dict[str, np.ndarray] = field(default_factory=dict)

    def contributions(self, metric: str) -> np.ndarray:
        """What each example contributes to ``metric`` x 100.

        Raises:
            ValueError: nothing says that.
        """
        if metric in self.shares:
            return 100 * np.asarray(self.shares[metric], dtype=np.float64)
        if self.shares:
            raise ValueError(
                f"{self.where} does not say what its examples contribute to {metric}; it does for "
                f"{', '.join(sorted(self.shares))}"
            )
        return contributions(metric, self.logits, self.labels)


def read(run_folder: Path, split: str = "validation", sha256: str | None = None) -> Predictions:
    """A run's predictions.

    Args:
        sha256: of the file, as the run's result has it; None = not known.

    Raises:
        MissingPredictions: there are none.
        ValueError: the file is damaged or lacks something; it is named.
    """
    path = run_folder / "predictions" / f"{split}.safetensors"
    if not path.is_file():
        raise MissingPredictions(
            f"{path} is not there: the run kept no predictions of {split}, and without them nothing can be said about "
            "new examples."
        )
    arrays = _arrays(path, sha256)
    shares = {name.removeprefix(BY_EXAMPLE): values for name, values in arrays.items() if name.startswith(BY_EXAMPLE)}
    if shares and "ids" in arrays:
        ids = arrays["ids"]
        uneven = [name for name, values in shares.items() if len(values) != len(ids)]
        if uneven or len(np.unique(ids)) != len(ids):
            raise ValueError(
                f"{path} has other numbers of ids and of {', '.join(uneven or shares)}; one each is needed"
            )
        order = np.argsort(ids)
        nothing = np.zeros(0)
        return Predictions(path, nothing, nothing, ids[order], {name: values[order] for name, values in shares.items()})
    lacking = [name for name in NAMES if name not in arrays]
    if lacking:
        raise ValueError(f"{path} lacks {', '.join(lacking)}; it needs {', '.join(NAMES)}")
    logits, labels, ids = (arrays[name] for name in NAMES)
    if not len(logits) == len(labels) == len(ids) or len(np.unique(ids)) != len(ids):
        sizes = f"{len(logits)} logits, {len(labels)} labels, {len(np.unique(ids))} different ids of {len(ids)}"
        raise ValueError(f"{path} has {sizes}; every example needs one of each")
    order = np.argsort(ids)
    return Predictions(path, np.asarray(logits, dtype=np.float64)[order], labels[order], ids[order])


def _arrays(path: Path, sha256: str | None) -> dict[str, np.ndarray]:
    """The arrays of a file; the format cannot run code."""
    from safetensors.numpy import load

    content = path.read_bytes()
    if sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise ValueError(
            f"{path} is damaged or of another run: its sha256 is not the one that the run's result.json has. Delete "
            "the run's folder and run the study again to write it anew"
        )
    try:
        return dict(load(content))
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read ({error}); delete the run's folder and run the study again to write it anew"
        ) from error


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
    return np.stack([one.contributions(metric) for one in runs])
