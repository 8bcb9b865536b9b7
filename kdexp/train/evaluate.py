"""Measuring a model: predictions, scores, the trivial answer, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from kdexp.models import capture
from kdexp.tasks.base import Encoded, Task
from kdexp.train.batching import evaluation_batches

if TYPE_CHECKING:
    from kdexp.train.phase import Run

EVALUATION_BATCH = 64


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory of this process (CPU) or of the device, in MiB."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


@torch.no_grad()
def predict(model: nn.Module, data: Encoded, run: Run, rows: np.ndarray | None = None) -> np.ndarray:
    """Return the logits (n, C) of a split in its own order, in float32, without dropout; of some ``rows`` in theirs."""
    model.eval()
    rows = np.arange(len(data)) if rows is None else rows
    out: np.ndarray | None = None
    for index in evaluation_batches(data.lengths[rows], EVALUATION_BATCH):
        batch = {k: v.to(run.device) for k, v in data.batch(rows[index]).items()}
        with torch.autocast(run.device.type, dtype=run.cast, enabled=run.cast is not None):
            logits = capture.forward(model, batch, frozenset())["logits"].float().cpu().numpy()
        if out is None:
            out = np.empty((len(rows), logits.shape[-1]), dtype=np.float32)
        out[index] = logits
    assert out is not None
    return out


def scores(model: nn.Module, data: dict[str, Encoded], task: Task, run: Run) -> dict[str, dict[str, float]]:
    """Return every metric on every split but train."""
    return {
        name: task.evaluate(predict(model, split, run), split.labels)
        for name, split in data.items()
        if name != "train" and len(split)
    }


def majority(data: dict[str, Encoded], task: Task) -> dict[str, dict[str, float]]:
    """Return what the trivial answer scores on every split but train."""
    return {
        name: task.majority(data["train"].labels, split.labels)
        for name, split in data.items()
        if name != "train" and len(split)
    }


def floor(summary: dict[str, Any], task: Task, teacher: dict[str, Any]) -> None:
    """Refuse a teacher that does not beat the majority answer by the configured margin.

    Args:
        summary: of its stage.
        teacher: the group ``teacher`` of the configuration.

    Raises:
        ValueError: it cannot teach; the likely causes are named.
    """
    score = summary["scores"]["validation"][task.metric]
    trivial = summary["majority"]["validation"][task.metric]
    margin = teacher["floor_margin"]
    if score < trivial + margin:
        raise ValueError(
            f"teacher {teacher['name']} reaches {task.metric} {score:.3f} on {task.name}; the majority "
            f"answer has {trivial:.3f} and teacher.floor_margin asks for {margin} more. Likely causes: it was never "
            "fine-tuned on this task (teacher.finetune=false), its labels are in another order than the data's, or its "
            "recipe is too short (teacher.recipe.epochs, teacher.recipe.learning_rate). Lower teacher.floor_margin "
            "only if you want a student of a poor teacher."
        )
