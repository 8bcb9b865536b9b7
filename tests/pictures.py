"""Small images with a class each, on disk, that several tests share."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

CLASSES = ("red", "green", "blue")


def picture(row: int, label: int, size: int = 32) -> np.ndarray:
    """An image (size, size, 3) of noise in which the colour of the class is brighter; another for every row."""
    rng = np.random.default_rng([row, label])
    values = rng.integers(0, 160, (size, size, 3))
    values[..., label] += 60
    return values.astype(np.uint8)


def png(values: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: Path, train: int = 96, validation: int = 48) -> Path:
    """``train.parquet`` and ``validation.parquet`` as ``datasets`` writes them: image {bytes, path}, label."""
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    for name, start, rows in (("train", 0, train), ("validation", 1000, validation)):
        labels = [row % len(CLASSES) for row in range(rows)]
        cells = [{"bytes": png(picture(start + row, label)), "path": None} for row, label in enumerate(labels)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        parquet.write_table(pa.table({"image": pa.array(cells, kind), "label": labels}), folder / f"{name}.parquet")
    return folder


def words(folder: Path, teacher: str = "resnet20", student: str = "resnet8") -> list[str]:
    """Command-line words of a run that takes seconds."""
    return [
        "task=images", f"task.folder={folder}", f"task.label_names=[{','.join(CLASSES)}]", "task.pad=2",
        "task.flip=true", f"teacher={teacher}", f"student={student}", "init=random", "recipe=cifar",
        "recipe@teacher.recipe=cifar", "recipe.epochs=2", "teacher.recipe.epochs=2", "recipe.batch_size=32",
        "teacher.recipe.batch_size=32", "teacher.floor_margin=-1", "runtime.device=cpu", "runtime.dtype=fp32",
        "runtime.compile=false", "runtime.progress=false", "runtime.log_every=1", "tracking=off",
    ]  # fmt: skip
