"""What goes into a forward pass and what comes out of it: the one vocabulary of tasks, models, heads and objectives.

Imports nothing heavy, so that a task can be looked at without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Features = dict  # dict[str, Tensor]: the head's outputs by name, and captured features (see kdexp.models.capture)
MASK = "mask"
"""Name of a teacher's feature: which of its positions are real, (B, L), where they are not the student's."""
Targets = Mapping[str, Any]  # label name -> one entry an example: an array (n, ...), or a list where lengths differ
Predictions = Mapping[str, Any]  # prediction name -> likewise, as numpy arrays


@dataclass
class Batch:
    """Some examples, ready for a model.

    Attributes:
        inputs: keyword arguments of the model, each (B, ...).
        mask: (B, L), 1 = real position, 0 = padding; None where inputs are not padded (images).
        labels: what the head compares with, by name, each (B, ...); empty for data without labels.
        index: (B,) int64, the examples' ids: their positions in the split.
    """

    inputs: dict[str, Tensor]
    mask: Tensor | None
    labels: dict[str, Tensor]
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.index.device

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device; a GPU fetches it from pinned memory, so that nobody waits for the copy."""
        if device.type == "cuda" and self.device.type == "cpu":
            return self._each(lambda x: x.pin_memory().to(device, non_blocking=True))
        return self._each(lambda x: x.to(device))

    def part(self, rows: slice) -> Batch:
        """Return some of its examples, padded as they are."""
        return self._each(lambda x: x[rows])

    def _each(self, change: Any) -> Batch:
        return Batch(
            {name: change(x) for name, x in self.inputs.items()},
            None if self.mask is None else change(self.mask),
            {name: change(x) for name, x in self.labels.items()},
            change(self.index),
        )
