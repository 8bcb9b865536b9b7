"""A student of a gang: its model, objectives, optimiser and progress, and what happens to it in a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdexp.models import capture
from kdexp.objectives.base import Features, Objective
from kdexp.train import checkpoint, optim


@dataclass(frozen=True)
class Term:
    """One weighted objective of a sum."""

    name: str
    weight: float
    objective: Objective


def loss(
    model: nn.Module,
    objectives: nn.ModuleDict,
    weights: dict[str, float],
    shares: dict[str, Tensor],
    batch: dict[str, Tensor],
    target: Features | None,
    want: frozenset[str],
    cast: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of all objectives and each one's own value; the part of a step that is compiled.

    Args:
        shares: for each objective, this micro-batch's share of the whole batch (1 without accumulation).
        cast: dtype of autocast for the model; objectives always compute in float32.

    Returns:
        A scalar and a vector (terms,), in the order of ``objectives``.
    """
    device = batch["input_ids"].device.type
    with torch.autocast(device, dtype=cast, enabled=cast is not None):
        mine = capture.forward(model, batch, want)
    with torch.autocast(device, enabled=False):
        values = [o(mine, target, batch) * shares[name] for name, o in objectives.items()]
        total = sum(weights[name] * value for name, value in zip(objectives, values, strict=True))
    return total, torch.stack([v.detach() for v in values])  # type: ignore[return-value]


def seed_of(seed: int, step: int, micro: int) -> int:
    """Return the generators' seed of one micro-batch: a pure function, so a resumed run draws the same numbers."""
    return ((seed * 1_000_003 + step) * 64 + micro) * 2


class Member:
    """A student in training.

    Args:
        model: the student, initialised, on its device.
        terms: weighted objectives, already set up.
        recipe: how to optimise.
        folder: where checkpoints and the best weights go.
        evaluate: returns ``{metric: value}`` of the student on the split that selects, or None when nothing selects.
        metric: the metric that selects (higher is better).
        cast: dtype of autocast or None.
        write: called with (step, epoch, {name: value}) for the metrics file.
        run: the loss function, perhaps compiled.
    """

    def __init__(
        self,
        model: nn.Module,
        terms: list[Term],
        recipe: dict[str, Any],
        folder: Path,
        evaluate: Callable[[nn.Module], dict[str, float]] | None,
        metric: str,
        cast: torch.dtype | None,
        write: Callable[[int, int, dict[str, float]], None],
        run: Callable[..., tuple[Tensor, Tensor]] = loss,
    ):
        self.model, self.recipe, self.folder, self.metric = model, recipe, folder, metric
        self.objectives = nn.ModuleDict({t.name: t.objective for t in terms}).to(next(model.parameters()).device)
        self.weights = {t.name: float(t.weight) for t in terms}
        self.want = capture.wanted([t.objective for t in terms], 0)
        self.judge, self.cast, self.write, self.run = evaluate, cast, write, run
        self.optimizer = optim.optimizer([model, self.objectives], recipe)
        self.progress = checkpoint.load(folder / "checkpoint", model, self.objectives, self.optimizer)
        self._sums: Tensor | None = None
        self._count = 0
        self._since = time.monotonic()

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Put the student into training mode and tell objectives with a schedule where they are.

        With ``recipe.dropout_epochs`` its dropout is on in that many epochs only (PKD's released code: in the first).
        """
        limit = self.recipe["dropout_epochs"]
        if limit is not None:
            self.training = epoch < limit
        self.model.train(self.training)
        for objective in self.objectives.values():
            objective.begin_epoch(epoch, epochs)  # type: ignore[operator]

    def backward(self, batch: dict, target: Features | None, whole: dict, seed: int, step: int, micro: int) -> None:
        """Add one micro-batch's gradients. ``whole`` is the batch it is part of."""
        torch.manual_seed(seed_of(seed, step, micro))
        shares = {name: self._share(o, batch, whole) for name, o in self.objectives.items()}  # type: ignore[arg-type]
        total, values = self.run(self.model, self.objectives, self.weights, shares, batch, target, self.want, self.cast)
        total.backward()
        self._sums = values if self._sums is None else self._sums + values

    def _share(self, objective: Objective, batch: dict, whole: dict) -> Tensor:
        one = torch.ones((), device=batch["attention_mask"].device)
        if batch is whole:
            return one
        part = objective.units(batch)
        return one if part is None else part.float() / objective.units(whole).float()  # type: ignore[union-attr]

    def update(self, rate: float, clip: float | None) -> None:
        """Clip, step, clear; ``rate`` is this update's learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self._count += 1

    def log(self, epoch: int) -> dict[str, float]:
        """Write the mean of each objective since the last call (the only host synchronisation of training)."""
        if self._sums is None or not self._count:
            return {}
        means = (self._sums / self._count).tolist()
        values = {f"train/{name}": v for name, v in zip(self.objectives, means, strict=True)}
        values["train/loss"] = sum(self.weights[name] * v for name, v in zip(self.objectives, means, strict=True))
        values["train/rate"] = self.optimizer.param_groups[0]["lr"]
        for name, objective in self.objectives.items():
            if objective.layer_losses is not None:  # of the last batch, by student layer
                layers = zip(objective.pairs, objective.layer_losses.tolist(), strict=True)  # type: ignore[arg-type, operator]
                values |= {f"train/{name}/{pair[0]}": value for pair, value in layers}
        self._sums, self._count = None, 0
        self.write(self.progress.step, epoch, values)
        self.last = values
        return values

    last: dict[str, float] = {}
    training = True
    """False keeps the model itself in evaluation mode: for stages that train other parts on a frozen model."""

    def evaluate(self, epoch: int, patience: int | None) -> None:
        """Score the student on the selecting split; remember its weights if they are the best so far."""
        if self.judge is None:
            return
        scores = self.judge(self.model)
        self.model.train(self.training)
        progress, score = self.progress, scores[self.metric]
        progress.history.append({"epoch": epoch, "step": progress.step, "scores": scores})
        self.write(progress.step, epoch, {f"selection/{k}": v for k, v in scores.items()})
        if progress.best_score is None or score > progress.best_score:
            progress.best_score, progress.waiting = score, 0
            progress.best = {"epoch": epoch, "step": progress.step, "scores": scores}
            if self.recipe["keep"] == "best":
                checkpoint.save_weights(self.folder / "best.safetensors", self.model)
        else:
            progress.waiting += 1
            progress.stopped = patience is not None and progress.waiting >= patience

    def checkpoint(self) -> None:
        """Write everything that continuing needs."""
        self.progress.seconds += time.monotonic() - self._since
        self._since = time.monotonic()
        checkpoint.save(self.folder / "checkpoint", self.model, self.objectives, self.optimizer, self.progress)

    def finish(self) -> None:
        """Go back to the best weights, if the recipe keeps those and something was selected."""
        self.progress.seconds += time.monotonic() - self._since
        best = self.folder / "best.safetensors"
        if self.recipe["keep"] == "best" and self.progress.best:
            if not best.exists():
                raise ValueError(f"{best} is missing: delete the folder {self.folder} to start this phase again.")
            checkpoint.load_weights(best, self.model)
