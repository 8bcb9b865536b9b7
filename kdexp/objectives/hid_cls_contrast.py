"""Hid-CLS-Contrast: NCE between [CLS] features and memory banks (CoDIR-like; released code of arXiv 2305.15032)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.config.schema import Count, Seed, Share, Temperature
from kdexp.heads.classification import LABEL
from kdexp.objectives.base import Batch, Context, Features, Objective
from kdexp.objectives.common import exact, layers_of, picked, some, targets, wide
from kdexp.objectives.noise import uniform

SMALL = 1e-7


def contrastive_step(
    student_features: Tensor,
    teacher_features: Tensor,
    student_bank: Tensor,
    teacher_bank: Tensor,
    indices: Tensor,
    temperature: float,
    normaliser: Tensor,
) -> tuple[Tensor, Tensor]:
    """NCE of a batch: half the sum of student-against-teacher-bank and teacher-against-student-bank.

    Args:
        student_features, teacher_features: (B, F); rows are scaled to length 1 here.
        student_bank, teacher_bank: (n, F), used as they are.
        indices: (B, 1+K) bank rows, the positive first.
        temperature: of the scores.
        normaliser: Z of both directions, (2,), negative = not set yet.

    Returns:
        The loss, and Z as used: mean(scores) * n of this batch where it was not set, one a direction.
    """
    first, z_first = _direction(student_features, teacher_bank, indices, temperature, normaliser[0])
    second, z_second = _direction(teacher_features, student_bank, indices, temperature, normaliser[1])
    return (first + second) / 2, torch.stack([z_first, z_second])


def _direction(features: Tensor, bank: Tensor, indices: Tensor, temperature: float, z: Tensor) -> tuple[Tensor, Tensor]:
    """-[sum log(s+/(s+ + c)) + sum log(c/(s- + c))] / B with s = exp(bank . feature / T) / Z and c = K/n."""
    with exact(features):
        anchor = F.normalize(wide(features), dim=-1)
        scores = ((wide(bank)[indices] @ anchor[:, :, None]).squeeze(-1) / temperature).exp()
    z = torch.where(z < 0, scores.detach().mean() * bank.shape[0], z.to(scores.dtype))
    c = (indices.shape[1] - 1) / bank.shape[0]
    shares = scores / z
    positive, negative = shares[:, 0], shares[:, 1:]
    logs = (positive / (positive + c + SMALL)).log().sum() + (c / (negative + c + SMALL)).log().sum()
    return -logs / indices.shape[0], z


class HidCLSContrast(Objective):
    """Contrast of projected [CLS] features with memory banks of all training examples; negatives of other labels.

    Feature = [CLS] vectors of all mapped layers side by side, a linear map to ``features`` dimensions, length 1. The
    banks start at random and follow with momentum: row <- normalise(m*row + (1-m)*feature). Z is fixed by the first
    batch. Negatives are drawn anew each epoch from (seed, epoch, example): one from each of K equal parts of the
    (randomly rotated) pool, hence distinct; with replacement if the pool is not larger than K.

    The value depends on what the banks hold, so micro-batches equal one batch only up to the banks' updates.

    Args:
        features: width of the features.
        negatives: K.
        temperature: of the scores.
        momentum: of the banks.
        seed: of the negatives.
    """

    needs: ClassVar[tuple[str, ...]] = ("hidden",)
    answers: ClassVar[bool] = False
    layers: ClassVar[str] = "hidden"
    default_mapping: ClassVar[str] = "combine"
    asks: ClassVar[tuple[str, ...]] = ("classes", "examples")
    batchwise = True

    order: Tensor
    counts: Tensor
    starts: Tensor
    normaliser: Tensor
    epoch: Tensor
    student_bank: Tensor
    teacher_bank: Tensor

    def __init__(
        self,
        features: Count = 128,
        negatives: Count = 100,
        temperature: Temperature = 0.07,
        momentum: Share = 0.5,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        self.features, self.negatives, self.temperature = features, negatives, temperature
        self.momentum, self.seed = momentum, seed

    def setup(self, context: Context) -> None:
        super().setup(context)
        assert context.teacher is not None
        labels = torch.tensor(np.asarray(context.targets[LABEL]), dtype=torch.long)
        if len(labels.unique()) < 2:
            raise ValueError(f"hid_cls_contrast needs at least 2 labels in train; all are {int(labels[0])}")
        self.ours = sorted(set(layers_of(self.pairs, 0)))
        self.theirs = sorted(set(layers_of(self.pairs, 1)))
        self.student_map = nn.Linear(len(self.ours) * context.student.hidden_size, self.features)
        self.teacher_map = nn.Linear(len(self.theirs) * context.teacher.hidden_size, self.features)
        counts = torch.bincount(labels, minlength=context.head.width)
        bound = (3 / self.features) ** 0.5
        self.register_buffer("order", labels.argsort(stable=True))
        self.register_buffer("counts", counts)
        self.register_buffer("starts", counts.cumsum(0) - counts)
        self.register_buffer("normaliser", torch.full((2,), -1.0))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))
        for bank in ("student_bank", "teacher_bank"):
            self.register_buffer(bank, torch.empty(len(labels), self.features).uniform_(-bound, bound))

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Draw other negatives from now on."""
        self.epoch.fill_(epoch)

    def undivided(self) -> str:
        """The banks follow every batch."""
        return "keeps banks of vectors that follow every batch"

    def reads(self) -> str:
        """The first position."""
        return "first"

    def draw(self, index: Tensor, labels: Tensor) -> Tensor:
        """Bank rows (B, 1+K): each example itself, then K examples of other labels."""
        noise = uniform(self.seed, self.epoch, index, self.negatives + 1)
        counts = self.counts[labels][:, None]
        pool = len(self.order) - counts
        k = torch.arange(self.negatives, device=index.device)[None, :]
        low, high = k * pool // self.negatives, (k + 1) * pool // self.negatives
        strata = low + (noise[:, 1:] * (high - low)).long() + (noise[:, :1] * pool).long()
        place = torch.where(pool > self.negatives, strata % pool, (noise[:, 1:] * pool).long())
        place = torch.where(place < self.starts[labels][:, None], place, place + counts)
        return torch.cat([index[:, None], self.order[place]], 1)

    @torch.no_grad()
    def _follow(self, bank: Tensor, index: Tensor, feature: Tensor) -> None:
        rows = self.momentum * bank[index] + (1 - self.momentum) * F.normalize(feature, dim=-1)
        bank.index_copy_(0, index, F.normalize(rows, dim=-1))

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss; in training, also let the banks follow."""
        assert teacher is not None
        index = batch.index.long()
        with exact(some(student)):
            ours = torch.cat([x[:, 0] for x in picked(student, "hidden", self.ours)], -1)
            theirs = torch.cat([x[:, 0] for x in targets(teacher, "hidden", self.theirs)], -1)
            ours, theirs = self.student_map(ours), self.teacher_map(theirs)
        rows = self.draw(index, batch.labels[LABEL].long())
        banks = self.student_bank, self.teacher_bank
        loss, z = contrastive_step(ours, theirs, *banks, rows, self.temperature, self.normaliser)
        if self.training:
            self.normaliser.copy_(z)
            self._follow(self.student_bank, index, ours.detach())
            self._follow(self.teacher_bank, index, theirs.detach())
        return loss
