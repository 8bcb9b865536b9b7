"""Images as bytes: decoded once by whichever process comes first, memory-mapped and checked by all others.

An entry is a folder ``<cache>/images/<key>/`` with ``pixels.npy`` (n, S, S, 3) and ``labels.npy`` (n,), and a record
with the checksums of both. It is written aside and moved into place whole. What is not S x S is scaled until its
shorter side is S, and its middle is taken.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kdexp.common import files, locks
from kdexp.tasks.text import values
from kdexp.tasks.text.files import Table, read

log = logging.getLogger("kdexp")

SCHEMA = 1
"""Raise it when the same file may become other pixels than before."""

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
"""Files of a class's folder that are images."""

CHUNK = 4096
"""Images that are hashed at a time."""


@dataclass
class Pictures:
    """Images and labels of one split, or of a part of it.

    Attributes:
        pixels: (N, S, S, 3) bytes of the whole split.
        all_labels: (N,) int64 classes of the whole split.
        rows: (n,) the examples that count.
        resized: images of the whole split that had another size.
        folder: of the cache's entry; None = it is in memory only.
    """

    pixels: np.ndarray
    all_labels: np.ndarray
    rows: np.ndarray
    resized: int = 0
    folder: Path | None = None
    labelled: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        """(n,) classes."""
        return self.all_labels[self.rows]

    def take(self, index: np.ndarray) -> Pictures:
        """Return the examples at ``index``, in that order; no pixel is copied."""
        return Pictures(self.pixels, self.all_labels, self.rows[index], self.resized, self.folder)

    def digest(self) -> str:
        """Return the sha256 (hex) over labels, size and pixels, in order, wherever they came from."""
        sha = hashlib.sha256(self.labels.astype(np.int64).tobytes())
        sha.update(repr(self.pixels.shape[1:]).encode())
        for start in range(0, len(self), CHUNK):
            sha.update(self.pixels[self.rows[start : start + CHUNK]].tobytes())
        return sha.hexdigest()


Make = Callable[[Callable[[int], np.ndarray]], tuple[np.ndarray, int]]
"""Decodes images: is given what makes room for n of them, fills that, and returns (labels, how many were resized)."""


def once(cache: Path | None, state: str, size: int, make: Make) -> Pictures:
    """Return a split's images from the cache, or made and put there; one process makes them, the others wait.

    Args:
        cache: folder; None = nothing is kept.
        state: what decides them.
        size: S.
        make: decodes them all.
    """
    if cache is None:
        return _in_memory(size, make)
    entry = Path(cache) / "images" / hashlib.sha256(f"{SCHEMA} {state} {size}".encode()).hexdigest()[:32]
    return locks.once(entry, load, lambda: _fill(entry, size, make))


def _in_memory(size: int, make: Make) -> Pictures:
    room: list[np.ndarray] = []

    def allocate(count: int) -> np.ndarray:
        room.append(np.empty((count, size, size, 3), dtype=np.uint8))
        return room[0]

    labels, resized = make(allocate)
    return Pictures(room[0], labels, np.arange(len(labels)), resized)


def _fill(entry: Path, size: int, make: Make) -> None:
    """Write an entry; pixels go to the disk as they come, so that no more than a few are in memory."""
    with files.fresh_folder(entry) as aside:

        def allocate(count: int) -> np.ndarray:
            return np.lib.format.open_memmap(aside / "pixels.npy", "w+", np.uint8, (count, size, size, 3))

        labels, resized = make(allocate)
        np.save(aside / "labels.npy", labels, allow_pickle=False)
        sums = {name: files.checksum(aside / f"{name}.npy") for name in ("pixels", "labels")}
        files.write_record(aside / "meta.json", {"sha256": sums, "resized": resized})


def load(entry: Path) -> Pictures | None:
    """Read an entry (memory-mapped, read-only), or None where there is none or it is damaged (then with a warning)."""
    if not entry.is_dir():
        return None
    try:
        meta = files.read_record(entry / "meta.json", {"sha256": dict, "resized": int}, strict=True)
        if meta is None:
            raise files.Damaged(entry / "meta.json", "it is missing")
        arrays = {}
        for name in ("pixels", "labels"):
            path = entry / f"{name}.npy"
            if files.checksum(path) != meta["sha256"][name]:
                raise ValueError(f"{path.name} is not what was written")
            arrays[name] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, KeyError) as error:
        log.warning("the cache entry %s is damaged (%s) and is made anew", entry, error)
        return None
    labels = np.array(arrays["labels"])
    return Pictures(arrays["pixels"], labels, np.arange(len(labels)), meta["resized"], entry)


# --- from files ------------------------------------------------------------------------------------------------------


Cell = tuple[str, Any]
"""Where an image was read, for people, and its bytes or its file."""


def contents(path: Path, image: str, label: str, names: list[str]) -> tuple[np.ndarray, list[Cell]]:
    """Return labels (n,) and undecoded images of a file with an image column, or of a folder with a folder a class.

    Args:
        path: a file of any format that texts may have too, or a folder.
        image: the column of images: their bytes (``datasets`` keeps them as ``{bytes, path}``), or paths of image
            files, counted from the file's folder.
        label: the column of class ids or names.
        names: the classes in the order of their ids.

    Raises:
        ValueError: a label or a cell that is none; names the first row, or the folder.
    """
    if path.is_dir():
        listed = listing(path, names)
        return np.array([names.index(name) for name, _ in listed], dtype=np.int64), [(str(f), f) for _, f in listed]
    table = read(path, [image, label])
    if not table.columns[label]:
        raise ValueError(f"{path} has no rows")
    return values.class_ids(table, label, names), list(_cells(table, image))


def listing(folder: Path, names: list[str]) -> list[tuple[str, Path]]:
    """Return (class, file) of all images below a folder that has a folder a class, in the order of their names.

    Raises:
        ValueError: a folder is no class, or there is no image.
    """
    found = []
    for below in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if below.name not in names:
            raise ValueError(
                f"{folder} has a folder {below.name}, which is none of the classes {', '.join(names)}: rename it, or "
                "correct task.label_names"
            )
        files_of = sorted(path for path in below.rglob("*") if path.suffix.lower() in ENDINGS)
        found += [(below.name, path) for path in files_of]
    if not found:
        raise ValueError(f"{folder} has no images: a folder a class is needed, with files {', '.join(ENDINGS)}")
    return found


def _cells(table: Table, column: str) -> Iterable[Cell]:
    """Return what each row has of an image, and where that is."""
    for row, cell in enumerate(table.columns[column]):
        content = cell.get("bytes") or cell.get("path") if isinstance(cell, dict) else cell
        if isinstance(content, str) and content:
            content = table.path.parent / content
        if not isinstance(content, bytes | Path):
            raise ValueError(f"{table.at(row, column)}: {cell!r:.40} is no image, nor the path of one")
        yield table.at(row, column), content


def decode(cells: Iterable[Cell], pixels: np.ndarray) -> int:
    """Decode images into ``pixels`` (n, S, S, 3), in their order; returns how many had another size.

    Raises:
        ValueError: one cannot be read; says where it is.
    """
    from PIL import Image

    size, resized = pixels.shape[1], 0
    for row, (place, content) in enumerate(cells):
        try:
            with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as opened:
                picture = opened.convert("RGB")
        except Exception as error:  # of many kinds: a decoder for each format
            said = "no image of a known format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
            raise ValueError(f"{place}: this image cannot be read ({said or type(error).__name__})") from error
        if picture.size != (size, size):
            picture, resized = _fitted(picture, size), resized + 1
        pixels[row] = np.asarray(picture)
    return resized


def _fitted(picture: Any, size: int) -> Any:
    """Return the middle of an image scaled until its shorter side is ``size`` (bicubic)."""
    from PIL import Image, ImageOps

    return ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
