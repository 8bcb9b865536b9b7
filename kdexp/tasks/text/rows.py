"""Raw examples of one split, and deterministic ways to choose among them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass
class Rows:
    """Texts and labels of one split.

    Attributes:
        first: the text (or the first of two).
        second: the second text, or None for single-text tasks.
        labels: (n,) int64 classes or float32 scores.
        labelled: False: nobody has said what is right, and the labels are zeros.
    """

    first: list[str]
    second: list[str] | None
    labels: np.ndarray
    labelled: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Rows:
        """The examples at ``index``, in that order."""
        second = None if self.second is None else [self.second[i] for i in index]
        return Rows([self.first[i] for i in index], second, self.labels[index], self.labelled)

    def digest(self) -> str:
        """sha256 (hex) over texts and labels, in order; independent of file format and place."""
        sha = hashlib.sha256(self.labels.astype(np.float64).tobytes())
        for column in (self.first, self.second or []):
            sha.update(len(column).to_bytes(8, "little"))
            for text in column:
                data = text.encode("utf-8", "surrogatepass")
                sha.update(len(data).to_bytes(8, "little"))
                sha.update(data)
        return sha.hexdigest()


class Limits(Protocol):
    """Settings of a task that uses some of its rows only."""

    limit_train: int | None
    limit_validation: int | None


def limit_of(task: Limits, split: str) -> int | None:
    """Return how many rows of a split a task uses; None = all."""
    return task.limit_train if split == "train" else task.limit_validation


def limited(task: Limits) -> list[tuple[str, str]]:
    """Return the mark of a task that scores on a part of its validation rows; [] = it scores on all."""
    limit = task.limit_validation
    if limit is None:
        return []
    return [("partial", f"scored on {limit} rows of a validation split at the most (task.limit_validation)")]


def stratified(labels: np.ndarray, n: int, seed: int, classes: bool) -> np.ndarray:
    """Choose ``n`` examples at random so that every class keeps its share; ids in ascending order.

    Each class gives its share rounded down; the rest goes to the largest remainders. The same arguments choose the
    same examples.

    Args:
        labels: (N,) classes or scores.
        n: how many, at most N.
        seed: of the choice.
        classes: False for scores (plain random choice).
    """
    rng = np.random.default_rng([seed, len(labels)])
    order = rng.permutation(len(labels))
    if not classes:
        return np.sort(order[:n])
    values, counts = np.unique(labels, return_counts=True)
    exact = counts * (n / max(1, len(labels)))
    quota = np.floor(exact + 1e-9).astype(np.int64)
    for i in np.argsort(-(exact - quota), kind="stable")[: n - int(quota.sum())]:
        quota[i] += 1
    shuffled = labels[order]
    return np.sort(np.concatenate([order[shuffled == v][:q] for v, q in zip(values, quota, strict=True)]))


def held(n: int, share: float) -> int:
    """Return how many of ``n`` training rows are held out.

    Raises:
        ValueError: ``share`` outside [0, 1), or so large or small that one side would be empty.
    """
    if not 0 <= share < 1:
        raise ValueError(f"data.heldout={share}: a share of train, at least 0 and below 1")
    wanted = round(share * n)
    if share and not 0 < wanted < n:
        raise ValueError(f"data.heldout={share} of {n} training rows leaves one side empty: change it")
    return wanted


def hold_out(rows: Rows, share: float, seed: int, classes: bool) -> tuple[Rows, Rows]:
    """Cut ``(train, heldout)`` out of the training rows; order is kept.

    Raises:
        ValueError: ``share`` outside [0, 1), or so large or small that one side would be empty.
    """
    chosen = stratified(rows.labels, held(len(rows), share), seed, classes)
    mask = np.zeros(len(rows), dtype=bool)
    mask[chosen] = True
    return rows.take(np.flatnonzero(~mask)), rows.take(chosen)


def held_groups(groups: Sequence[str], share: float) -> np.ndarray:
    """Return which training rows are held out, in whole groups: as many as come nearest to the share of rows.

    Args:
        groups: the group of each row, at least two different ones.

    Raises:
        ValueError: as :func:`held`.
    """
    wanted = held(len(groups), share)
    if not wanted:
        return np.zeros(0, dtype=np.int64)
    sizes = Counter(groups)
    names, chosen, count = sorted(sizes), set[str](), 0
    for place in np.random.default_rng([0, len(names)]).permutation(len(names)):
        more = count + sizes[names[place]]
        if abs(more - wanted) < abs(count - wanted) and len(chosen) < len(names) - 1:
            chosen.add(names[place])
            count = more
    if not chosen:
        chosen = {min(names, key=lambda name: (sizes[name], name))}
    return np.array([i for i, name in enumerate(groups) if name in chosen], dtype=np.int64)
