"""The teacher as the loop sees it: a function from a batch to features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kdexp.models import capture
from kdexp.objectives.base import Features


class Live:
    """A teacher that is run on every batch, frozen and without dropout.

    Args:
        model: the teacher; it is frozen here.
        want: names of the features to hand out beside logits.
        cast: dtype of autocast, or None for full precision.
        evaluation: False keeps its dropout on, as released code of How to Distill your BERT does (card, A2).
    """

    def __init__(self, model: nn.Module, want: frozenset[str], cast: torch.dtype | None, evaluation: bool = True):
        self.model = model.requires_grad_(False).train(not evaluation)
        self.want, self.cast = want, cast
        self.run = capture.forward

    @torch.no_grad()
    def __call__(self, batch: dict[str, Tensor]) -> Features:
        """Return the teacher's features for a batch; no gradient reaches it."""
        device = batch["input_ids"].device.type
        with torch.autocast(device, dtype=self.cast, enabled=self.cast is not None):
            return self.run(self.model, batch, self.want)


LOGITS = "train_logits.{length}.safetensors"


def keep_logits(folder: Path, logits: np.ndarray, length: int, rows: np.ndarray | None = None) -> None:
    """Store a teacher's logits (n, C) on the training split, whose texts were cut at ``length`` tokens.

    Args:
        rows: (n,) the examples that they belong to, where they are not all of the split.
    """
    from safetensors.numpy import save_file

    kept = {"logits": np.ascontiguousarray(logits)} | ({} if rows is None else {"rows": rows.astype(np.int64)})
    save_file(kept, folder / LOGITS.format(length=length))


class Stored:
    """A teacher's logits on the training split, computed once and looked up by example id.

    Equal to running the teacher but for the rounding that padding brings (about 1e-3 relative in bf16).

    Args:
        logits: (n, C), row = example id; NaN where none was kept.
    """

    def __init__(self, logits: Tensor):
        self.logits = logits

    @classmethod
    def open(cls, folder: Path, length: int, device: torch.device, rows: np.ndarray) -> Stored | None:
        """Read what :func:`keep_logits` wrote; None if there is nothing for these rows at this length of texts."""
        from safetensors.torch import load_file

        path = folder / LOGITS.format(length=length)
        if not path.is_file():
            return None
        kept = load_file(path)
        logits = kept["logits"]
        if "rows" in kept:
            if not np.isin(rows, kept["rows"].numpy()).all():
                return None
            logits = torch.full((int(kept["rows"].max()) + 1, logits.shape[-1]), torch.nan)
            logits[kept["rows"]] = kept["logits"]
        return cls(logits.to(device))

    def __call__(self, batch: dict[str, Tensor]) -> Features:
        """Return the logits of a batch's examples."""
        return {"logits": self.logits[batch["index"]]}
