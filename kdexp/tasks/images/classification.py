"""Images with a class each: CIFAR-10 and CIFAR-100, or any set in files or folders of one's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from kdexp.common import files
from kdexp.common.problems import ConfigError
from kdexp.common.registry import build
from kdexp.heads.batch import Batch
from kdexp.tasks.base import DataContext, Dataset, Targets
from kdexp.tasks.images import augment, pixels
from kdexp.tasks.images.pixels import Pictures
from kdexp.tasks.text import encoding
from kdexp.tasks.text.encoding import LABEL
from kdexp.tasks.text.place import Located
from kdexp.tasks.text.table import TextTask

if TYPE_CHECKING:
    from kdexp.heads.base import Head

Bright = Annotated[float, Field(ge=-10, le=10)]
"""A brightness, 0 = black and 1 = white."""
Spread = Annotated[float, Field(gt=0, le=10)]
Colours = Annotated[list[Bright], Field(min_length=3, max_length=3)]
Spreads = Annotated[list[Spread], Field(min_length=3, max_length=3)]
Side = Annotated[int, Field(ge=4, le=4096)]
Border = Annotated[int, Field(ge=0, le=1024)]

HEAD = "kdexp.heads.image_classification.ImageClassification"
PROCESSOR = "preprocessor_config.json"
"""What a model's folder says of how its images were prepared."""

SPECIMENS = 64
"""Images a split that are decoded before anything is loaded, to see whether they can be."""

_LOOKED: dict[str, dict[str, Any] | list[str]] = {}
"""What this process has seen of files: the classes of train and how often each, or what is wrong."""


@dataclass
class Images(Dataset):
    """One split: colours as numbers around 0, (value / 255 - mean) / std of each colour.

    Attributes:
        pictures: the images and their classes.
        mean, std: of each colour, on a scale from 0 to 1.
        pad: black pixels around an image before it is cut to its size again; 0 = no crops.
        flip: mirror half of them.
        drawn: (seed, epoch) that crops and mirroring are drawn for; None = images as they are.
        listed: say which of the pixels on disk are its images, where they are a part of them.
    """

    pictures: Pictures
    mean: list[float]
    std: list[float]
    pad: int = 0
    flip: bool = False
    drawn: tuple[int, int] | None = None
    listed: bool = False

    def __post_init__(self) -> None:
        self.fixed = not (self.pad or self.flip)
        values = np.arange(256, dtype=np.float64)[None] / 255
        mean, std = (np.array(numbers)[:, None] for numbers in (self.mean, self.std))
        self._table = ((values - mean) / std).astype(np.float32)  # (3, 256): every value that a colour can have

    def __len__(self) -> int:
        return len(self.pictures)

    def in_epoch(self, seed: int, epoch: int) -> Dataset:
        """See :meth:`Dataset.in_epoch`."""
        return self if self.fixed else replace(self, drawn=(seed, epoch))

    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Batch:
        """Make a batch: ``pixel_values`` (B, 3, S, S) float32; nothing is padded, so there is no mask.

        Crops and mirroring are those of the epoch (:meth:`in_epoch`), whatever the step; outside of one there are none.
        """
        import torch

        index = np.asarray(index, dtype=np.int64)
        rows = self.pictures.rows[index]
        values = np.asarray(self.pictures.pixels[rows])
        if self.drawn is not None:
            numbers = augment.draws(*self.drawn, index, 3)
            values = augment.augmented(values, numbers, self.pad, self.flip)
        colours = self._table[np.arange(3)[:, None, None], values.transpose(0, 3, 1, 2)]
        labels = torch.from_numpy(self.pictures.all_labels[rows])
        inputs = {"pixel_values": torch.from_numpy(np.ascontiguousarray(colours))}
        return Batch(inputs, None, {LABEL: labels}, torch.from_numpy(index))

    @property
    def targets(self) -> Targets:
        """Class ids."""
        return {LABEL: self.pictures.labels}

    @property
    def facts(self) -> dict[str, Any]:
        """Where the pixels lie, for whoever shows some, and how many images of the file had another size."""
        folder, part = self.pictures.folder, self.listed and len(self) < len(self.pictures.pixels)
        rows = {"pixel_rows": self.pictures.rows.tolist()} if part else {}
        return {"pixels": None if folder is None else str(folder), "resized": self.pictures.resized, **rows}


@dataclass
class ImageTask(TextTask):
    """Images of one size with a class each.

    Where the files are looked for is as for texts; beside files with an image column, a split may be a folder that has
    a folder a class.

    Attributes:
        columns: the image column.
        size: side of the square that models see, in pixels.
        mean, std: of each colour in the training images, from 0 to 1: what they are normalised by.
        pad: training images get a black border of so many pixels and are cut to their size at a random place.
        flip: half of the training images are mirrored, left to right.
    """

    reads: ClassVar[str] = "images"
    idle: ClassVar[tuple[str, ...]] = ("max_length", "bucket")

    size: Side = 32
    mean: Colours = field(default_factory=lambda: [0.5, 0.5, 0.5])
    std: Spreads = field(default_factory=lambda: [0.5, 0.5, 0.5])
    pad: Border = 0
    flip: bool = False

    @property
    def fixed(self) -> bool:  # type: ignore[override]
        """See :attr:`Task.fixed`: neither crops nor mirroring."""
        return not (self.pad or self.flip)

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: naming what does not fit.
        """
        if len(self.columns) != 1:
            raise ValueError(f"task.columns={list(self.columns)}: name one image column")
        if self.kind != "classification":
            raise ValueError(f"task.kind={self.kind}: images are classified; use classification")
        super().__post_init__()

    @property
    def head(self) -> Head:
        """Classes."""
        head: Head = build({"_target_": HEAD, "label_names": list(self.label_names)})
        return head

    unlabelled_rows = Located.unlabelled_rows  # of labelled images only

    # --- files ----------------------------------------------------------------------------------------------------

    def _in(self, folder: str | None, root: str | None) -> tuple[dict[str, Path], list[str]]:
        """As for texts; a split may also be a folder of its own name, or of a name in ``files``."""
        found, missing = super()._in(folder, root)
        base = None if folder is None else self._base(folder, root)
        for split, names in self.files.items():
            options = [split, *([names] if isinstance(names, str) else names)]
            below = [] if base is None else [base / name for name in options]
            path = next((path for path in below if path.is_dir()), None)
            if path is not None and split not in found:
                found[split] = path
        needed = [split for split in self.files if split not in found and split not in self.optional]
        return found, missing if needed else []

    def _column_problems(self, path: Path, labelled: bool = True) -> list[str]:
        return [] if path.is_dir() else super()._column_problems(path, labelled)

    def source_state(self, root: str | None, cache: Path | None) -> str:
        """See :meth:`SequenceTask.source_state`; of a folder, all its files count."""
        states = {split: self._file_state(path) for split, path in self._files(root, cache).items()}
        return hashlib.sha256(json.dumps([states, self.size], sort_keys=True).encode()).hexdigest()

    def _file_state(self, path: Path) -> str:
        """Return a string that changes when the images of a split might."""
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found = [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in inside if p.is_file()]
        settings = [self.columns, self.label, self.label_names]
        return hashlib.sha256(json.dumps([found, settings]).encode()).hexdigest()

    def rows(self, root: str | None, cache: Path | None) -> dict[str, Any]:
        """All images of all splits that exist (:class:`Pictures`), decoded now unless the cache has them.

        Raises:
            ValueError: files, images or labels that do not fit; names the row (of each file, the first).
        """
        out, wrong = {}, []
        for split, path in self._files(root, cache).items():

            def make(allocate: Any, path: Path = path) -> tuple[np.ndarray, int]:
                labels, cells = pixels.contents(path, self.columns[0], self.label, self.label_names)
                return labels, pixels.decode(cells, allocate(len(cells)))

            try:
                out[split] = pixels.once(cache, self._file_state(path), self.size, make)
            except ValueError as error:
                wrong.append(f"task={self.name}: {error}.")
        if wrong:
            raise ConfigError(wrong)
        return out

    # --- the interface --------------------------------------------------------------------------------------------

    def unusable(self, context: DataContext) -> list[str]:
        """See :meth:`Task.unusable`: all labels are read and some images decoded; nothing is kept."""
        root, cache, wrong = context.root, context.cache, list[str]()
        if self.at_hand(root, cache):
            kept = encoding.recall(cache, "fingerprints", self._state(root, cache))
            train = self._looked(root, cache) if kept is None else kept["splits"]["train"]
            wrong += train if isinstance(train, list) else self._unlearnable(train, context.heldout)
        if context.options.get("local_files_only"):
            wrong += self._other_images(Path(context.model))
        return wrong

    def _looked(self, root: str | None, cache: Path | None) -> dict[str, Any] | list[str]:
        """Look once a process at files that nobody has decoded yet: the classes of train, or what is wrong."""
        state = self._state(root, cache)
        if state not in _LOOKED:
            counts: dict[str, Any] = {}
            wrong: list[str] = []
            for split, path in self._files(root, cache).items():
                try:
                    labels, cells = pixels.contents(path, self.columns[0], self.label, self.label_names)
                    some = np.unique(np.linspace(0, len(cells) - 1, min(SPECIMENS, len(cells))).astype(np.int64))
                    room = np.empty((len(some), self.size, self.size, 3), dtype=np.uint8)
                    pixels.decode((cells[row] for row in some), room)
                    counts[split] = self._counts(Pictures(room, labels, np.arange(len(labels))))  # type: ignore[arg-type]
                except ValueError as error:
                    wrong.append(f"task={self.name}: {error}.")
            _LOOKED[state] = wrong or counts["train"]
        return _LOOKED[state]

    def _other_images(self, folder: Path) -> list[str]:
        """Say what a local model's files tell about images that is not what the task gives it."""
        said = _read(folder / "config.json")
        side = said.get("image_size")
        wrong = []
        if side is not None and side not in (self.size, [self.size, self.size]):
            wrong.append(
                f"task.size={self.size}, but {folder}/config.json says image_size={side}: say task.size={side}, or "
                "choose another teacher."
            )
        prepared = _read(folder / PROCESSOR)
        for key, given in (("mean", self.mean), ("std", self.std)):
            stated = prepared.get(f"image_{key}")
            if prepared.get("do_normalize", True) and stated is not None and not np.allclose(stated, given, atol=1e-3):
                wrong.append(
                    f"task.{key}={list(given)}, but the teacher was trained with {stated} ({folder}/{PROCESSOR}): say "
                    f"task.{key}={json.dumps(stated)}."
                )
        return wrong

    def datasets(self, context: DataContext) -> dict[str, Dataset]:
        """See :meth:`Task.datasets`; crops and mirroring are for train alone.

        Raises:
            ValueError: nothing can be learned from the images, or the teacher has seen others.
        """
        wrong = self._unlearnable(self._known(context.root, context.cache)["splits"]["train"], context.heldout)
        wrong += self._other_images(Path(context.model))
        if wrong:
            raise ConfigError(wrong)
        splits: dict[str, Any] = self.splits(context.root, context.heldout, cache=context.cache)
        drawn: dict[str, dict[str, Any]] = {"train": {"pad": self.pad, "flip": self.flip}}
        made: dict[str, Dataset] = {
            name: Images(
                pictures, list(self.mean), list(self.std), **drawn.get(name, {}), listed=name.startswith("validation")
            )
            for name, pictures in splits.items()
        }
        resized = {name: pictures.resized for name, pictures in splits.items() if pictures.resized}
        for name, count in resized.items():
            context.say(f"{count} images of the file of {name} were scaled to {self.size} x {self.size} pixels")
        return made

    def unseen(self, context: DataContext, split: str, file: Path | None = None) -> Dataset:
        """See :meth:`Task.unseen`: images are not predicted.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"task={self.name} has images, and predictions are written for texts only: what a run answered on its "
            "validation images is in its predictions/validation.safetensors"
        )

    def save_preprocessor(self, context: DataContext, folder: Path) -> None:
        """See :meth:`Task.save_preprocessor`: size and normalisation, as transformers' image processors read them."""
        prepared = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": self.size, "width": self.size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        files.write_json(folder / PROCESSOR, prepared)


def _read(path: Path) -> Mapping[str, Any]:
    """Return what a JSON file of a model says; nothing where it cannot be read, which others say better."""
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
