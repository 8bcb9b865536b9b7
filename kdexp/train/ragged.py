"""How features of examples of unequal lengths lie in a flat file, and how they are looked up as padded batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from kdexp.heads.batch import Batch


@dataclass(frozen=True)
class Layout:
    """How a feature lies on disk, an example after another.

    Attributes:
        axes: of the batch's tensor (B, ...), those that are as long as the inputs; they come first on disk.
        rest: sizes of the others.
        kind: of numbers: ``fp32`` or ``bf16``.
    """

    axes: tuple[int, ...]
    rest: tuple[int, ...]
    kind: str

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Layout:
        """Read what :func:`vars` of one gave, by way of JSON."""
        return cls(tuple(said["axes"]), tuple(said["rest"]), said["kind"])

    @property
    def dtype(self) -> np.dtype[Any]:
        """What numpy reads: it knows no bf16, whose bits are those of some whole number."""
        return np.dtype({"fp32": "<f4", "bf16": "<i2"}[self.kind])

    @property
    def torch_dtype(self) -> torch.dtype:
        """What torch takes the bits for."""
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[self.kind]

    def counts(self, lengths: np.ndarray) -> np.ndarray:
        """Return how many numbers each example has, of its length (n,)."""
        return lengths.astype(np.int64) ** len(self.axes) * math.prod(self.rest)

    def bounds(self, lengths: np.ndarray) -> np.ndarray:
        """Return where each example begins, (n + 1,) bytes."""
        return np.concatenate([[0], np.cumsum(self.counts(lengths))]) * self.dtype.itemsize

    def pack(self, values: Tensor, mask: Tensor | None) -> bytes:
        """Return a batch's feature as it lies on disk: real positions only."""
        values = values.movedim(self.axes, tuple(range(1, 1 + len(self.axes))))
        if self.axes:
            assert mask is not None
            real = mask.bool()
            values = values[real if len(self.axes) == 1 else real[:, :, None] & real[:, None, :]]
        flat = values.to("cpu", self.torch_dtype).contiguous().reshape(-1)
        return flat.view(torch.uint8).numpy().tobytes()


class Stored:
    """A feature on disk, looked up by example id; a function from a batch to a tensor.

    Args:
        file: its numbers, held open.
        layout: how they lie there.
        order: (m,) ids in the order of the file.
        lengths: (m,) of these examples.
        device: where features go.
        resident: what is of a fixed size lies there whole: a GPU looks it up without waiting for the CPU.
    """

    def __init__(
        self,
        file: BinaryIO,
        layout: Layout,
        order: np.ndarray,
        lengths: np.ndarray,
        device: torch.device,
        resident: bool = False,
    ) -> None:
        dtype = layout.dtype
        self.file, self.layout, self.device = file, layout, device
        self.bounds = layout.bounds(lengths) // dtype.itemsize
        self.place = np.full(int(order.max()) + 1, -1)
        self.place[order] = np.arange(len(order))
        self.lengths = lengths
        self.numbers = np.memmap(file, dtype, "r", shape=(int(self.bounds[-1]),))
        self.table: Tensor | None = None
        if resident and not layout.axes:
            table = self._tensor(self.numbers.reshape(-1, *layout.rest).copy())
            nothing = torch.full_like(table[:1], torch.nan)  # at place -1, so that no number is made up
            self.table, self.places = torch.cat([table, nothing]), torch.from_numpy(self.place).to(device)

    def __call__(self, batch: Batch) -> Tensor:
        """Return the feature of a batch's examples, padded as they are, with zeros."""
        if self.table is not None:
            return self.table[self.places[batch.index]]
        layout, at = self.layout, self.place[batch.index.cpu().numpy()]
        assert (at >= 0).all(), "an example that was not stored"
        if not layout.axes:
            return self._tensor(self.numbers.reshape(-1, *layout.rest)[at])
        assert batch.mask is not None
        inner = (batch.mask.shape[1],) * len(layout.axes)
        padded = np.zeros((len(at), *inner, *layout.rest), self.numbers.dtype)
        for row, place in enumerate(at):
            real = (int(self.lengths[place]),) * len(inner)
            here = self.numbers[self.bounds[place] : self.bounds[place + 1]]
            padded[row][tuple(slice(n) for n in real)] = here.reshape(*real, *layout.rest)
        return self._tensor(padded).movedim(tuple(range(1, 1 + len(inner))), layout.axes)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).view(self.layout.torch_dtype).to(self.device)
