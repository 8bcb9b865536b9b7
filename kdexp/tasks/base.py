"""The interface of a task: what is read, how it becomes a batch, how predictions are judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import Tensor


@dataclass
class Encoded:
    """One split, tokenised: ragged token ids in two flat arrays, ready to be padded into batches.

    Attributes:
        tokens: (total,) int32, the ids of all examples one after another.
        types: (total,) int8 segment ids, or None where the model has none.
        offsets: (n + 1,) int64; example i is ``tokens[offsets[i]:offsets[i + 1]]``.
        labels: (n,) int64 classes or float32 scores.
        pad: id of the padding token.
        truncated: number of examples that were cut to the maximal length.
    """

    tokens: np.ndarray
    types: np.ndarray | None
    offsets: np.ndarray
    labels: np.ndarray
    pad: int
    truncated: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) token counts."""
        return self.offsets[1:] - self.offsets[:-1]

    def batch(self, index: np.ndarray, pad_to: int | None = None) -> dict[str, Tensor]:
        """Pad examples ``index`` (positions in this split = stable example ids) into one batch.

        Returns CPU tensors: ``input_ids`` (B, L) int64, ``attention_mask`` (B, L) int64, 1 = real token,
        ``token_type_ids`` (B, L) where the model has them, ``labels`` (B,), ``index`` (B,) int64.
        ``L`` is the longest example of the batch, or ``pad_to`` (see :func:`kdexp.train.batching.padded`).

        Raises:
            ValueError: an example is longer than ``pad_to``.
        """
        import numpy as np
        import torch

        index = np.asarray(index, dtype=np.int64)
        start, lengths = self.offsets[index], self.lengths[index]
        longest = int(lengths.max())
        width = int(pad_to or longest)
        if width < longest:
            raise ValueError(f"pad_to={width} is shorter than the longest example of the batch ({longest} tokens)")
        real = np.arange(width) < lengths[:, None]
        source = (start[:, None] + np.arange(width))[real]
        ids = np.full(real.shape, self.pad, dtype=np.int64)
        ids[real] = self.tokens[source]
        out = {"input_ids": ids, "attention_mask": real.astype(np.int64), "labels": self.labels[index], "index": index}
        if self.types is not None:
            types = np.zeros(real.shape, dtype=np.int64)
            types[real] = self.types[source]
            out["token_type_ids"] = types
        return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in out.items()}


@dataclass
class Task(ABC):
    """Data, inputs, head and metrics of one problem. Settings come from the YAML of the same name.

    Subclasses are dataclasses; ``train`` is split deterministically into ``train`` and ``heldout`` so that model
    selection never touches ``validation``.

    Attributes:
        name: the task's name in tables.
        kind: ``classification`` or ``regression``.
        label_names: class names in the order of their ids (empty for regression).
        metrics: every metric that the task's literature uses; all are recorded.
        metric: the one that tables show and selection uses; one of ``metrics``.
        higher_is_better: direction of ``metric``.
    """

    name: str
    kind: str = "classification"
    label_names: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=lambda: ["accuracy"])
    metric: str = "accuracy"

    @property
    def num_labels(self) -> int:
        """C; 1 for regression."""
        return 1 if self.kind == "regression" else len(self.label_names)

    def shown_name(self, root: str | None) -> str:
        """Name for tables: :attr:`name`, marked when the data behind it are not what the name promises."""
        return self.name

    def note(self, root: str | None) -> str | None:
        """What a reader of the score must know about the data, or None."""
        return None

    @abstractmethod
    def problems(self, root: str | None) -> list[str]:
        """Everything that would stop :meth:`splits`, as sentences for people (data root missing, ...).

        Cheap: looks at files' existence, loads nothing, never touches a network.
        """

    @abstractmethod
    def fingerprint(self, root: str | None, cache: Path | None = None) -> str:
        """sha256 (hex) of the content of all splits; the same rows elsewhere give the same value. No torch.

        With ``cache`` the value is remembered there for as long as the source files do not change.
        """

    @abstractmethod
    def splits(self, root: str | None, heldout: float, seed: int = 0, cache: Path | None = None) -> dict[str, Any]:
        """Raw examples by split: ``train``, ``heldout``, ``validation`` and further ``validation_*``.

        Args:
            root: local data root, or None (then the hub, or nothing for embedded tasks).
            heldout: share of train that is set aside for selection (stratified for classes), 0 for none.
            seed: of the cut; the same for all runs, so that students of one study see the same train part.
            cache: folder for what is costly to gather (downloads, the embedded corpus), or None.
        """

    @abstractmethod
    def encode(
        self, tokenizer: Any, max_length: int, root: str | None, heldout: float, cache: Path
    ) -> dict[str, Encoded]:
        """Tokenise every split once; kept below ``cache`` by content of data, tokenizer, length and cut.

        Safe when many processes ask at once (one works, the others wait and read).
        """

    @abstractmethod
    def evaluate(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """All ``metrics`` as fractions. logits (n, C), or (n,) / (n, 1) scores; labels (n,)."""

    @abstractmethod
    def majority(self, train_labels: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """All metrics of the trivial answer (most frequent train class; train mean for regression) on ``labels``."""
