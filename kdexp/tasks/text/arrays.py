"""Arrays of tokenised splits on disk: made once, by whichever process comes first, memory-mapped by all others.

An entry is a folder with plain ``.npy`` arrays and ``meta.json``; it is written aside and moved into place whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from kdexp.common import files

log = logging.getLogger(__name__)

T = TypeVar("T")

Parts = tuple[Mapping[str, np.ndarray], Mapping[str, int]]
"""What a split is made of: arrays by name, and whole numbers by name."""


def save(folder: Path, splits: Mapping[str, Parts]) -> None:
    """Write an entry aside, flush it, move it into place (of a damaged one, which has just been refused)."""
    meta = {}
    size = sum(array.nbytes for arrays, _ in splits.values() for array in arrays.values())
    with files.fresh_folder(folder, size) as aside:
        for split, (arrays, numbers) in splits.items():
            for name, array in arrays.items():
                np.save(aside / f"{split}.{name}.npy", array, allow_pickle=False)
            sums = {name: files.checksum(aside / f"{split}.{name}.npy") for name in arrays}
            meta[split] = {**numbers, "sha256": sums}
        files.write_record(aside / "meta.json", meta)


def load(folder: Path, make: Callable[[dict[str, np.ndarray], dict[str, int]], T]) -> dict[str, T] | None:
    """Read an entry (memory-mapped, read-only), or None where there is none or it is damaged (then with a warning).

    Args:
        make: makes a split of its arrays and numbers.
    """
    if not folder.is_dir():
        return None
    try:
        meta = files.read_record(folder / "meta.json", {}, strict=True)
        if meta is None:
            raise files.Damaged(folder / "meta.json", "it is missing")
        out = {}
        for split, info in meta.items():
            arrays = {name: _read(folder / f"{split}.{name}.npy", sha256) for name, sha256 in info["sha256"].items()}
            out[split] = make(arrays, {name: number for name, number in info.items() if name != "sha256"})
        return out
    except (OSError, ValueError, KeyError) as error:
        log.warning("the cache entry %s is damaged (%s) and is made anew", folder, error)
        return None


def _read(path: Path, sha256: str) -> np.ndarray:
    if files.checksum(path) != sha256:
        raise ValueError(f"{path.name} is not what was written")
    try:
        array: np.ndarray = np.load(path, mmap_mode="r")
    except ValueError:  # an empty array cannot be mapped
        array = np.load(path)
    return array
