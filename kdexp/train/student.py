"""A student in training: its step, optimiser and progress, and what happens to it in an update."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from kdexp.common import files, turns
from kdexp.config.schema import Recipe
from kdexp.heads.batch import Batch, Features
from kdexp.objectives.base import Objective
from kdexp.train import checkpoint, optim
from kdexp.train.distributed import ALONE, Ranks
from kdexp.train.step import Step, run_step

MICRO = 64
"""Micro-batches of a step whose seeds are numbered without a gap."""

LAYERS = "layers."
"""Marks, among the sums of a checkpoint, the last losses by layer of an objective."""

AGAIN = "run the same command again; it goes on from the last checkpoint."


class Diverged(ValueError):
    """A loss, a gradient or a weight is not finite: going on would only spoil what was learned."""


def seed_of(seed: int, step: int, micro: int) -> int:
    """Return the generators' seed of one micro-batch: a pure function, so a resumed run draws the same numbers.

    Even numbers, so that the next odd one is free for a teacher that keeps its dropout on. From micro-batch 64 on the
    numbering by steps would repeat itself; those seeds are hashed, and lie above all numbered ones.
    """
    if micro < MICRO:
        return ((seed * 1_000_003 + step) * MICRO + micro) * 2
    mixed = hashlib.sha256(f"{seed} {step} {micro}".encode()).digest()
    return (1 << 62) + (int.from_bytes(mixed[:7], "little") << 1)


class Student:
    """A student in training.

    Args:
        step: the model with its head and objectives, on its device.
        recipe: how to optimise.
        folder: where checkpoints and the best weights go.
        evaluate: returns ``{metric: value}`` of the model on the split that selects, or None when nothing selects.
        metric: the metric that selects (higher is better).
        write: called with (step, epoch, {name: value}) for the metrics file.
        run: runs the step, perhaps compiled (:func:`kdexp.train.step.run_step`).
        beside: further modules that are trained and checkpointed with the student, and never exported.
    """

    def __init__(
        self,
        step: Step,
        recipe: Recipe,
        folder: Path,
        evaluate: Callable[[nn.Module], dict[str, float]] | None,
        metric: str,
        write: Callable[[int, int, dict[str, float]], None],
        run: Callable[..., tuple[Tensor, Tensor]] = run_step,
        beside: nn.Module | None = None,
    ):
        self.model, self.objectives, self.weights = step.model, step.objectives, step.weights
        self.step = step.to(next(step.model.parameters()).device)
        self.recipe, self.folder, self.metric = recipe, folder, metric
        self.judge, self.write, self.run = evaluate, write, run
        self.parts = nn.ModuleDict({"objectives": self.objectives, **({"beside": beside} if beside else {})})
        self.optimizer = optim.optimizer([self.model, self.parts], recipe)
        sums: dict[str, Tensor] = {}
        self.progress = checkpoint.load(folder / "checkpoint", self.model, self.parts, self.optimizer, sums)
        self.last: dict[str, float] = {}
        self.training = True  # False keeps the model in evaluation mode: other parts are trained on a frozen model
        place = next(step.model.parameters()).device
        for name, objective in zip(self.objectives, self.step.listeners(), strict=True):
            objective.layer_losses = sums.pop(f"{LAYERS}{name}", objective.layer_losses)
        self._sums = {name: value.to(place) for name, value in sums.items()}  # since the last line of metrics
        self._bad: dict[str, Tensor] = {}  # the first step at which something was not finite, 0 = none
        self._rates: dict[int, float] = {}
        self._since = turns.clock()
        self.ranks = ALONE

    def join(self, ranks: Ranks) -> None:
        """Train with other processes from now on: go on from rank 0's progress and weights, share gradients.

        Raises:
            ValueError: something is trained that the step does not run, so that its gradients would not be shared.
        """
        shared = {id(p) for p in self.step.parameters()}
        if any(id(p) not in shared for group in self.optimizer.param_groups for p in group["params"]):
            raise ValueError("a module is trained beside the student, on its own gradients: use runtime.devices=1.")
        self.ranks = ranks
        self.progress = checkpoint.Progress(**ranks.told(asdict(self.progress)))
        tensors = ranks.shared(checkpoint.state(self.model, self.parts, self.optimizer))
        if not ranks.first:
            checkpoint.restore(tensors, self.model, self.parts, self.optimizer)
            none = torch.zeros(len(self.objectives), device=next(self.step.parameters()).device)
            self._sums = {"values": none, "norms": none.sum()} if self.progress.unlogged else {}
        self.run = ranks.beside(self.step, self.run)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Put the student into training mode and tell objectives with a schedule where they are.

        With ``recipe.dropout_epochs`` its dropout is on in that many epochs only (PKD's released code: in the first).
        """
        limit = self.recipe.dropout_epochs
        if limit is not None:
            self.training = epoch < limit
        self.model.train(self.training)
        for objective in self.step.listeners():
            objective.begin_epoch(epoch, epochs)

    def backward(
        self, batch: Batch, target: Features | None, whole: Batch | None, seed: int, step: int, micro: int
    ) -> None:
        """Add one micro-batch's gradients. ``whole`` is the batch it is part of; None = it counts for nothing."""
        torch.manual_seed(seed_of(seed, step, micro))
        shares = {name: _share(o, batch, whole) for name, o in self.objectives.items()}  # type: ignore[arg-type]
        total, values = self.run(self.step, batch, target, shares)
        total.backward()
        self._add("values", values)
        self._mark("terms", values)

    def update(self, rate: float, number: int) -> None:
        """Clip, step, clear.

        Args:
            rate: this update's learning rate.
            number: of this update, from 1, since the optimiser's moments were 0.
        """
        parameters = [p for g in self.optimizer.param_groups for p in g["params"] if p.grad is not None]
        norm = optim.clip(parameters, self.recipe)
        optim.step(self.optimizer, self.recipe, rate, number)
        self.optimizer.zero_grad(set_to_none=True)
        self._add("norms", norm)
        self._mark("norm", norm)
        self.progress.step += 1
        self.progress.unlogged += 1
        self.progress.rate = self._rates[self.progress.step] = rate

    def _add(self, what: str, values: Tensor) -> None:
        """Add the objectives' values, or the norm of the gradients, to what the next line of metrics is the mean of."""
        known = self._sums.get(what)
        self._sums[what] = values.clone() if known is None else known + values  # a recorded graph writes there again

    def _mark(self, what: str, values: Tensor) -> None:
        """Remember, without waiting for the device, which of these values were first not finite in this update."""
        bad = torch.where(values.isfinite(), 0, self.progress.step + 1)
        before = self._bad.get(what)
        self._bad[what] = bad if before is None else torch.where(before > 0, before, bad)

    def check_finite(self, weights: bool = False) -> None:
        """Stop if an update since the last check, or a weight, was not finite. Waits for the device.

        Raises:
            Diverged: with step, term and learning rate; the last good checkpoint stays where it is.
        """
        names = {"terms": [*self.objectives], "norm": ["the gradient norm"]}
        steps = {
            n: s
            for what, bad in self._bad.items()
            for n, s in zip(names[what], self.ranks.earliest(bad).reshape(-1).tolist(), strict=True)
        }
        first = min((step for step in steps.values() if step), default=0)
        if first:
            found = [name for name, step in steps.items() if step == first]
            self._stop(first, " and ".join(found[:-1] or found), self._rates.get(first))  # a bad term spoils the norm
        self._bad, self._rates = {}, {}
        if weights:
            tensors = {**dict(self.model.named_parameters()), **dict(self.parts.named_parameters())}
            if not bool(torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).all()):
                lost = next(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all()))
                self._stop(self.progress.step, f"the weight {lost}", self.progress.rate)

    def _stop(self, step: int, what: str, rate: float | None) -> None:
        at = "" if rate is None else f" at a learning rate of {rate:.3g}"
        kept = " The last good checkpoint is kept." if (self.folder / "checkpoint").exists() else ""
        raise Diverged(
            f"step {step}: {what} is not finite{at}: the training diverged.{kept} Lower recipe.learning_rate (it is "
            f"{self.recipe.learning_rate}), lengthen recipe.warmup, set recipe.clip (it is {self.recipe.clip}), "
            "or lower the term's weight."
        )

    def log(self, epoch: int) -> dict[str, float]:
        """Write the mean of each objective since the last call (the only host synchronisation of training).

        Raises:
            Diverged: one of them is not finite.
        """
        count = self.progress.unlogged
        if not count:
            return {}
        self.check_finite()
        means = (self.ranks.summed(self._sums["values"]) / count).tolist()
        values = {f"train/{name}": v for name, v in zip(self.objectives, means, strict=True)}
        values["train/loss"] = sum(self.weights[name] * v for name, v in zip(self.objectives, means, strict=True))
        values["train/rate"] = self.progress.rate
        values["train/grad_norm"] = float(self._sums["norms"] / count)
        for name, objective in zip(self.objectives, self.step.listeners(), strict=True):
            if objective.layer_losses is not None:  # of the last batch, by student layer
                layers = zip(objective.pairs, objective.layer_losses.tolist(), strict=True)
                values |= {f"train/{name}/{pair[0]}": value for pair, value in layers}
        self._sums, self.progress.unlogged = {}, 0
        self.write(self.progress.step, epoch, values)
        self.last = values
        return values

    def evaluate(self, epoch: int, patience: int | None) -> None:
        """Score the student on the selecting split; remember its weights if they are the best so far."""
        if self.judge is None:
            return
        self.check_finite(weights=True)
        scores = self.ranks.told(self.judge(self.model) if self.ranks.first else None)
        self.model.train(self.training)
        progress, score = self.progress, scores[self.metric]
        progress.history.append({"epoch": epoch, "step": progress.step, "scores": scores})
        self.write(progress.step, epoch, {f"selection/{k}": v for k, v in scores.items()})
        if progress.best_score is None or score > progress.best_score:
            progress.best_score, progress.waiting = score, 0
            progress.best = {"epoch": epoch, "step": progress.step, "scores": scores}
            if self.recipe.keep == "best" and self.ranks.first:
                progress.best_sha256 = checkpoint.save_weights(self.folder / checkpoint.BEST, self.model)
        else:
            progress.waiting += 1
            progress.stopped = patience is not None and progress.waiting >= patience

    def checkpoint(self) -> None:
        """Write everything that continuing needs.

        Raises:
            Diverged: there is nothing worth writing; an older checkpoint stays.
        """
        self.check_finite(weights=True)
        self.progress.seconds += turns.clock() - self._since
        self._since = turns.clock()
        listeners = zip(self.objectives, self.step.listeners(), strict=True)
        layers = {f"{LAYERS}{name}": o.layer_losses for name, o in listeners if o.layer_losses is not None}
        sums = {what: self.ranks.summed(v) if what == "values" else v for what, v in self._sums.items()}
        if self.ranks.first:
            sums |= layers
            checkpoint.save(self.folder / "checkpoint", self.model, self.parts, self.optimizer, self.progress, sums)

    def finish(self) -> None:
        """Go back to the best weights, if the recipe keeps those and something was selected.

        Raises:
            Diverged: the last weights are not finite.
            ValueError: the best weights are not what was written.
        """
        self.check_finite(weights=True)
        self.progress.seconds += turns.clock() - self._since
        best = self.folder / checkpoint.BEST
        if self.recipe.keep == "best" and self.progress.best and self.ranks.first:
            if not best.exists():
                raise ValueError(f"{best} is missing: {AGAIN}")
            if self.progress.best_sha256 is not None and files.checksum(best) != self.progress.best_sha256:
                raise ValueError(f"{best} is damaged (its sha256 is not the one noted when it was written): {AGAIN}")
            checkpoint.load_weights(best, self.model)
        weights = self.ranks.shared(self.model.state_dict())
        if not self.ranks.first:
            self.model.load_state_dict(weights)


def _share(objective: Objective, batch: Batch, whole: Batch | None) -> Tensor:
    """Return a micro-batch's share of what an objective averages over in the whole batch."""
    one = torch.ones((), device=batch.device)
    if whole is None:
        return 0 * one
    if batch is whole:
        return one
    part, total = objective.units(batch), objective.units(whole)
    return one if part is None or total is None else part.float() / total.float()
