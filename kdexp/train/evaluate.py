"""Measuring a model: predictions of any head, scores, the trivial answer, memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from kdexp.config.schema import Teacher
from kdexp.heads.base import Head
from kdexp.heads.batch import Batch, Features, Predictions
from kdexp.models import capture
from kdexp.tasks.base import Dataset, Goal
from kdexp.train import predictions
from kdexp.train.batching import evaluation_batches

EVALUATION_BATCH = 64


class Place(Protocol):
    """Where a model computes, and how."""

    @property
    def device(self) -> torch.device:
        """Where batches go."""

    @property
    def cast(self) -> torch.dtype | None:
        """The dtype of autocast, None for full precision."""

    def asked(self, done: int, total: int, examples: int) -> None:
        """Hear that a model has answered ``done`` of ``total`` batches, the last one of so many examples."""


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory of this process (CPU) or of the device, in MiB."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


@torch.no_grad()
def collect(
    model: nn.Module,
    data: Dataset,
    head: Head,
    context: Place,
    keep: Callable[[Features, Batch], Mapping[str, Tensor]],
    rows: np.ndarray | None = None,
) -> dict[str, Any]:
    """Run a model over a split, without dropout, and keep something of every example.

    Args:
        keep: what is kept of a batch, by name, each (B, ...).
        rows: examples to run, in the order that is returned; None = all.

    Returns:
        By name, an array (n, ...), or a list of n arrays where shapes differ between batches.
    """
    capture.prepare(model, frozenset())
    model.eval()
    rows = np.arange(len(data)) if rows is None else rows
    kept: dict[str, list[Any]] = {}
    batches = evaluation_batches(data.costs[rows], min(EVALUATION_BATCH, head.together))
    cast = torch.autocast(context.device.type, dtype=context.cast, enabled=context.cast is not None)
    with cast:  # around all batches, so that each weight is cast once
        for number, index in enumerate(batches, 1):
            batch = data.collate(rows[index]).to(context.device)
            features = capture.forward(model, head, batch)
            for name, values in keep(features, batch).items():
                places = kept.setdefault(name, [None] * len(rows))
                for place, value in zip(index, values.cpu().numpy(), strict=True):
                    places[place] = value
            context.asked(number, len(batches), len(index))
    return {name: _joined(values) for name, values in kept.items()}


def _joined(values: list[np.ndarray]) -> Any:
    return np.stack(values) if len({np.shape(value) for value in values}) == 1 else values


def predict(model: nn.Module, data: Dataset, head: Head, context: Place, rows: np.ndarray | None = None) -> Predictions:
    """Return what a head keeps of every example of a split for scoring, in the split's order.

    Args:
        rows: items to run, in the order that is returned, each by itself; None = all, put together by example.
    """
    kept = collect(model, data, head, context, head.predictions, rows)
    return data.gather(kept) if rows is None else kept


def answers(
    model: nn.Module, data: Dataset, head: Head, context: Place, rows: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return a head's outputs on every example, float32: what a cached teacher hands out."""
    return collect(model, data, head, context, lambda f, batch: {n: f[n].float() for n in head.names}, rows)


def measured(data: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Return the splits that are scored: every one but train that has examples."""
    return {name: split for name, split in data.items() if name != "train" and len(split)}


def scores(
    model: nn.Module,
    data: Mapping[str, Dataset],
    goal: Goal,
    context: Place,
    keep: Path | None = None,
    known: Mapping[str, Predictions] | None = None,
) -> dict[str, dict[str, float]]:
    """Return every metric on every split but train.

    Args:
        keep: the folder of a stage, to keep the predictions in.
        known: of some splits, what these very weights answer there.
    """
    out = {}
    for name, split in measured(data).items():
        answered = known[name] if known and name in known else predict(model, split, goal.head, context)
        out[name] = goal.evaluate(answered, split.truths)
        if keep is not None:
            predictions.write(keep, name, answered, split.truths, goal, out[name])
    return out


def stamp(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """Return what changes whenever a weight or buffer of a model is replaced or written to; costs no look at it."""
    return tuple((id(tensor), tensor._version) for tensor in model.state_dict(keep_vars=True).values())


def trivial(data: Mapping[str, Dataset], goal: Goal) -> dict[str, dict[str, float]]:
    """Return what the trivial answer scores on every split but train."""
    return {name: goal.trivial(data["train"].truths, split.truths) for name, split in measured(data).items()}


def floor(summary: Mapping[str, Any], goal: Goal, teacher: Teacher) -> None:
    """Refuse a teacher that does not beat the majority answer by the configured margin.

    Args:
        summary: of its stage.
        teacher: the group ``teacher`` of the configuration.

    Raises:
        ValueError: it cannot teach; the likely causes are named.
    """
    score = summary["scores"]["validation"][goal.metric]
    majority = summary["majority"]["validation"][goal.metric]
    margin = teacher.floor_margin
    if score < majority + margin:
        raise ValueError(
            f"teacher {teacher.name} reaches {goal.metric} {score:.3f} on {goal.name}; the majority "
            f"answer has {majority:.3f} and teacher.floor_margin asks for {margin} more. Likely causes: it was never "
            "fine-tuned on this task (teacher.finetune=false), its labels are in another order than the data's, or its "
            "recipe is too short (teacher.recipe.epochs, teacher.recipe.learning_rate). Lower teacher.floor_margin "
            "only if you want a student of a poor teacher."
        )
