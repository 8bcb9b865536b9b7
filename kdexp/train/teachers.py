"""The teacher as the loop sees it: a function from a batch to features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from kdexp.heads.base import Head
from kdexp.heads.batch import Batch, Features
from kdexp.models import capture, precision

Teacher = Callable[[Batch], Features]
STORED = "train_features.{length}.safetensors"


class LiveTeacher:
    """A teacher that is run on every batch, frozen and without dropout.

    Args:
        model: the teacher; it is frozen here, and its weights are cast to what products are computed in.
        head: what it answers.
        want: names of the features to hand out beside the head's outputs.
        dtype: of autocast, or None for full precision.
        evaluation: False keeps its dropout on, as released code of How to Distill your BERT does (card, A2).
        answers: the head's outputs are handed out; False = the wanted features are all that is computed.
        run: runs the model, perhaps compiled (:func:`kdexp.models.capture.forward`).
    """

    def __init__(
        self,
        model: nn.Module,
        head: Head,
        want: frozenset[str],
        dtype: torch.dtype | None,
        evaluation: bool = True,
        answers: bool = True,
        run: Callable[..., Features] = capture.forward,
    ):
        self.model = model.requires_grad_(False).train(not evaluation)
        self.head, self.want, self.dtype, self.answers, self.run = head, want, dtype, answers, run
        capture.prepare(model, want)
        precision.lower(self.model, dtype)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Features:
        """Return the teacher's features for a batch; no gradient reaches it."""
        with torch.autocast(batch.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return self.run(self.model, self.head, batch, self.want, self.answers)


def keep_features(
    folder: Path, features: Mapping[str, np.ndarray], length: int, rows: np.ndarray | None = None
) -> None:
    """Store what a teacher says about the training split, whose inputs were cut at ``length`` positions.

    Args:
        features: by name, each (n, ...).
        rows: (n,) the examples that they belong to, where they are not all of the split.
    """
    from safetensors.numpy import save_file

    tensors = {f"feature.{name}": np.ascontiguousarray(values) for name, values in features.items()}
    save_file(
        tensors | ({} if rows is None else {"rows": rows.astype(np.int64)}), folder / STORED.format(length=length)
    )


class CachedTeacher:
    """What a teacher says about the training split, computed once and looked up by example id.

    Equal to running the teacher but for the rounding that padding brings (about 1e-3 relative in bf16), and bit-equal
    where the batch is padded as the one that was stored. Only for a teacher without dropout, and examples that are the
    same in every batch (:attr:`kdexp.tasks.base.Dataset.fixed`).

    Args:
        features: by name, each (n, ...), row = example id; NaN where none was kept.
        stored: features on disk by name, each a function from a batch to what :class:`LiveTeacher` would give for it,
            with zeros at padding, or its first position alone (:meth:`kdexp.objectives.base.Objective.reads`).
    """

    def __init__(
        self, features: dict[str, Tensor], stored: Mapping[str, Callable[[Batch], Tensor]] = MappingProxyType({})
    ):
        self.features, self.stored = features, stored

    @classmethod
    def open(
        cls, folder: Path, names: Iterable[str], length: int, device: torch.device, rows: np.ndarray
    ) -> CachedTeacher | None:
        """Read what :func:`keep_features` wrote.

        Args:
            names: features that are asked for.
            rows: (m,) the examples that will be asked for.

        Returns:
            None if a feature is not there for one of these rows at this length of inputs.
        """
        from safetensors.torch import load_file

        path = folder / STORED.format(length=length)
        if not path.is_file():
            return None
        stored = load_file(path)
        if any(f"feature.{name}" not in stored for name in names):
            return None
        features = {name: stored[f"feature.{name}"] for name in names}
        if "rows" not in stored and len(rows) and int(rows.max()) >= len(next(iter(features.values()))):
            return None  # of rows that were labelled later
        if "rows" in stored:
            kept = stored["rows"]
            if not np.isin(rows, kept.numpy()).all():
                return None
            features = {name: _spread(values, kept) for name, values in features.items()}
        return cls({name: values.to(device) for name, values in features.items()})

    def __call__(self, batch: Batch) -> Features:
        """Return the features of a batch's examples."""
        features: Features = {name: values[batch.index] for name, values in self.features.items()}
        return features | {name: look_up(batch) for name, look_up in self.stored.items()}


def _spread(values: Tensor, rows: Tensor) -> Tensor:
    """Put the values (m, ...) of some examples where their ids are; NaN elsewhere."""
    whole = torch.full((int(rows.max()) + 1, *values.shape[1:]), torch.nan)
    whole[rows] = values
    return whole
