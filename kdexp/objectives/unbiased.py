"""UnKD counterpart: soft labels inside groups of equally frequent classes (after WSDM 2023, arXiv 2211.14729)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from kdexp.config.schema import Amount, Count, Seed, Temperature
from kdexp.heads.base import Head
from kdexp.heads.classification import LABEL, log_probabilities
from kdexp.objectives.base import Batch, Context, Features, Objective
from kdexp.objectives.common import choice, idle, wide
from kdexp.objectives.noise import uniform

WEIGHTS = ("uniform", "teacher")
FORMS = ("stratified", "pairs")


def frequency_groups(counts: Sequence[int] | Tensor, groups: int) -> list[list[int]]:
    """Class numbers by falling count (ties: lower first), cut greedily into groups of about equal total count.

    A class that would lift the running sum above total/groups closes the running group (an empty one: it is a group
    of its own). A rest above half that share is a group, else it joins the last one.
    """
    counts = [int(count) for count in counts]
    share = sum(counts) / groups
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    out: list[list[int]] = []
    running: list[int] = []
    total = 0
    for c in order:
        if total + counts[c] > share:
            if running:
                out.append(running)
                running, total = [c], counts[c]
            else:
                out.append([c])
                running, total = [], 0
        else:
            running.append(c)
            total += counts[c]
    if running and (total > share / 2 or not out):
        out.append(running)
    elif running:
        out[-1] += running
    return out


def stratified_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    groups: Sequence[int],
    temperature: float = 1.0,
    times_T2: bool = True,
    weights: str = "uniform",
    with_marginal: bool = False,
) -> Tensor:
    """KL(teacher || student) inside groups of classes, logits (B, C), mean over sentences.

    Args:
        groups: one number a class; only groups of two classes or more take part.
        weights: ``uniform`` = mean over those groups; ``teacher`` = weighted by the teacher's mass of a group.
        with_marginal: plus the KL of the groups' masses; with ``teacher`` that is the plain KL.
    """
    choice("weights", weights, WEIGHTS)
    log_q, log_p = log_probabilities(student_logits, teacher_logits.detach(), temperature)
    inner, masses = [], []
    for group in sorted(set(groups)):
        members = [c for c, its in enumerate(groups) if its == group]
        q, p = log_q[:, members], log_p[:, members]
        mass_q, mass_p = q.logsumexp(-1), p.logsumexp(-1)
        masses.append(mass_p.exp() * (mass_p - mass_q))
        if len(members) > 1:
            within = ((p - mass_p[:, None]).exp() * (p - mass_p[:, None] - q + mass_q[:, None])).sum(-1)
            inner.append(within * (mass_p.exp() if weights == "teacher" else 1.0))
    value = sum(inner, log_q.sum(-1) * 0.0)
    if weights == "uniform" and inner:
        value = value / len(inner)
    if with_marginal:
        value = value + sum(masses)
    return value.mean() * (temperature**2 if times_T2 else 1.0)


def group_bpr(student_scores: Tensor, pairs: Tensor) -> Tensor:
    """Mean of -log(sigmoid(s_better - s_worse) + 1e-10), scores (B, C), pairs (B, P, 2) of classes [better, worse]."""
    s = wide(student_scores).gather(1, pairs.flatten(1)).unflatten(1, pairs.shape[1:])
    return -((s[..., 0] - s[..., 1]).sigmoid() + 1e-10).log().mean()


def rank_weights(n: int, scale: float = 20.0) -> Tensor:
    """exp(-(1+i)/scale) for ranks i = 0..n-1, float64."""
    return torch.exp(-(1 + torch.arange(n, dtype=torch.float64)) / scale)


class Unbiased(Objective):
    """The teacher's order inside groups of about equally frequent classes, and not its pull towards frequent ones.

    **A counterpart of UnKD**: classes take the place of items, their training frequency of popularity. form
    ``stratified``: KL of the softmax renormalised inside each group; ``pairs``: the sampled form, BPR on pairs of a
    group's classes that are drawn with weights exp(-(rank+1)/scale) by the teacher's rank, anew each epoch by (seed,
    epoch, example). Reduction: mean over groups and sentences. Mask: none needed. Power of T: 2 (``stratified``),
    none (``pairs``). Units: sentences. Source: official code for recommendation (4 groups, 30 pairs; its weights by
    user are computed there and never used). Degenerate: groups of one class say nothing; where all are such and no
    marginal is added the task is refused. ``with_marginal`` and ``weights: teacher`` together are plain KD.

    Args:
        groups: how many to cut the classes into.
        form: ``stratified`` or ``pairs``.
        temperature: divides both sides' logits (``stratified``).
        weights: ``uniform`` or ``teacher``, over groups (``stratified``).
        with_marginal: add the KL of the groups' masses (``stratified``).
        pairs: pairs drawn of each group (``pairs``).
        scale: of the ranks' weights (``pairs``).
        seed: of the draws (``pairs``).
    """

    asks: ClassVar[tuple[str, ...]] = ("classes", "examples")

    epoch: Tensor

    def __init__(
        self,
        groups: Count = 2,
        form: str = "stratified",
        temperature: Temperature = 2.0,
        weights: str = "uniform",
        with_marginal: bool = False,
        pairs: Count = 10,
        scale: Amount = 20.0,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        choice("unbiased.form", form, FORMS)
        choice("unbiased.weights", weights, WEIGHTS)
        drawing = {"pairs": (pairs, 10), "scale": (scale, 20.0), "seed": (seed, 0)}
        softening = {
            "temperature": (temperature, 2.0), "weights": (weights, "uniform"), "with_marginal": (with_marginal, False),
        }  # fmt: skip
        idle(f"unbiased.form={form}", drawing if form == "stratified" else softening)
        self.groups, self.form, self.temperature, self.weights = groups, form, temperature, weights
        self.with_marginal, self.draws, self.scale, self.seed = with_marginal, pairs, scale, seed
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def suits(self, head: Head) -> None:
        """Refuse two classes, each a group of its own."""
        if head.width == 2 and self.groups > 1 and not self.with_marginal:
            raise ValueError(
                f"unbiased.groups={self.groups} leaves nothing to learn of 2 classes: inside a group of one class "
                "there is no order. Take a task of four classes or more, or with_marginal=true"
            )

    def setup(self, context: Context) -> None:
        super().setup(context)
        counts = np.bincount(np.asarray(context.targets[LABEL], dtype=np.int64), minlength=context.head.width)
        self.members = frequency_groups(counts.tolist(), self.groups)
        if all(len(group) < 2 for group in self.members) and not self.with_marginal:
            raise ValueError(
                f"unbiased.groups={self.groups} cuts the {context.head.width} classes into groups of one class each, "
                "inside which there is nothing to learn: lower groups, or set with_marginal=true"
            )
        number = {c: g for g, group in enumerate(self.members) for c in group}
        self.group_of = [number[c] for c in range(context.head.width)]

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Draw other pairs from now on."""
        self.epoch.fill_(epoch)

    def drawn(self, teacher: Tensor, index: Tensor) -> Tensor:
        """Return pairs of classes (B, P, 2), the one that the teacher prefers first, all within groups."""
        out = []
        for number, group in enumerate(self.members):
            if len(group) < 2:
                continue
            classes = torch.tensor(group, device=teacher.device)
            order = classes[teacher[:, group].argsort(-1, descending=True)]  # (B, n), best first
            noise = uniform(self.seed + number, self.epoch, index, self.draws * len(group))
            noise = noise.reshape(len(index), self.draws, len(group)).clamp(1e-12, 1 - 1e-12)
            weights = rank_weights(len(group), self.scale).to(teacher.device)
            keys = weights.log() - (-noise.log()).log()  # Gumbel keys: the two largest are a weighted draw
            ranks = keys.topk(2, dim=-1).indices.sort(-1).values
            out.append(order[:, None, :].expand(-1, self.draws, -1).gather(2, ranks))
        return torch.cat(out, 1)

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        ours, theirs = student["logits"], teacher["logits"].detach()
        if self.form == "pairs":
            return group_bpr(ours, self.drawn(theirs, batch.index))
        settings = {"weights": self.weights, "with_marginal": self.with_marginal}
        return stratified_kl(ours, theirs, self.group_of, self.temperature, **settings)  # type: ignore[arg-type]
