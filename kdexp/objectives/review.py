"""ReviewKD adapted to tokens (Chen et al. 2021, arXiv 2104.09044; the adaptation to transformers is ours)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.config.schema import Count, NotNegative
from kdexp.objectives.base import Batch, Context, Features
from kdexp.objectives.common import OfTokens, exact, layers_of, mask_for, picked, some, targets, token_mean, wide

POOLS = (4, 2, 1)


def hcl(student: list[Tensor], teacher: list[Tensor], attention_mask: Tensor | None = None) -> Tensor:
    """Hierarchical context loss, summed over the listed features.

    Of each: mean squared error at full size, plus 1/2, 1/4, 1/8 of it on averages over 4, 2, 1 segments (a size that
    is not smaller than the feature is skipped, the weights move up), divided by the used weights' sum.

    Args:
        student, teacher: maps (N, C, H, W), pooled to l x l; or tokens (B, L, D), pooled to l segments of real tokens.
        attention_mask: (B, L) for tokens, 1 = real.
    """
    losses = [_one(wide(s), wide(t), attention_mask) for s, t in zip(student, teacher, strict=True)]
    return torch.stack(losses).sum()


def _one(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """The loss of one feature."""
    pool: Callable[[Tensor, int], Tensor] = F.adaptive_avg_pool2d
    if student.dim() == 3:
        real = torch.ones(student.shape[:2], device=student.device) if mask is None else mask

        def pool(x: Tensor, size: int) -> Tensor:
            return segment_means(x, real, size)

        loss = token_mean((student - teacher).square(), real)
        height = student.shape[1]
    else:
        loss = F.mse_loss(student, teacher)
        height = student.shape[2]
    weight, used = 1.0, 1.0
    for size in POOLS:
        if size >= height:
            continue
        weight /= 2
        used += weight
        loss = loss + weight * F.mse_loss(pool(student, size), pool(teacher, size))
    return loss / used


def segment_means(x: Tensor, mask: Tensor, size: int) -> Tensor:
    """Average over ``size`` equal segments of each sentence's real tokens, (B, L, D) to (B, size, D).

    A segment of a sentence of n tokens runs from floor(i*n/size) to ceil((i+1)*n/size), as adaptive pooling does.
    """
    lengths = mask.sum(-1).long()[:, None]
    i = torch.arange(size, device=x.device)[None, :]
    low = (i * lengths) // size
    high = ((i + 1) * lengths + size - 1) // size
    position = (mask.long().cumsum(-1) - 1)[:, None, :]
    inside = (position >= low[..., None]) & (position < high[..., None]) & mask.bool()[:, None, :]
    weight = inside.to(x.dtype)
    with exact(x):
        return weight @ x / weight.sum(-1, keepdim=True)


def reviewkd_warmup(epochs: Sequence[float], length: float = 20) -> list[float]:
    """Weight min(1, epoch/length) of each given epoch."""
    return [min(1.0, epoch / length) for epoch in epochs]


class Fusion(nn.Module):
    """One stage on the way from deep to shallow: mix with the deeper stage's residual, map to the teacher's width."""

    def __init__(self, width: int, middle: int, out: int, deepest: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, middle, bias=False), nn.LayerNorm(middle))
        self.gate = None if deepest else nn.Linear(2 * middle, 2)
        self.outer = nn.Sequential(nn.Linear(middle, out, bias=False), nn.LayerNorm(out))

    def forward(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Student states (B, L, D) to what is matched, (B, L, D_teacher), and the residual for the next stage."""
        x = self.inner(x)
        if self.gate is not None:
            assert residual is not None
            gates = self.gate(torch.cat([x, residual], -1)).sigmoid()
            x = x * gates[..., :1] + residual * gates[..., 1:]
        return self.outer(x), x


class Review(OfTokens):
    """Warm-up weight * sum over stages of :func:`hcl` between fused student states and teacher states.

    Stages are the matched layers, visited from deep to shallow. A plain mean over real tokens at full size; pooled
    sizes average sentences equally, so micro-batches of unequal length equal one batch only nearly.

    Args:
        middle: width inside the fusion; null = min(512, the student's width).
        warmup_epochs: epochs until full weight; null = 1/12 of the phase (20 of 240 in the paper).
    """

    needs: ClassVar[tuple[str, ...]] = ("hidden",)
    answers: ClassVar[bool] = False
    layers: ClassVar[str] = "attention"

    weight: Tensor

    def __init__(self, middle: Count | None = None, warmup_epochs: NotNegative | None = None) -> None:
        super().__init__()
        self.middle, self.warmup_epochs = middle, warmup_epochs
        self.register_buffer("weight", torch.tensor(1.0))

    def setup(self, context: Context) -> None:
        super().setup(context)
        assert context.teacher is not None
        self.pairs = sorted(self.pairs, reverse=True)
        width, out = context.student.hidden_size, context.teacher.hidden_size
        middle = self.middle or min(512, width)
        self.stages = nn.ModuleList(Fusion(width, middle, out, deepest=i == 0) for i in range(len(self.pairs)))

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the warm-up weight; the first epoch counts as 1, or it would teach nothing."""
        length = max(epochs / 12, 1.0) if self.warmup_epochs is None else self.warmup_epochs
        self.weight.fill_(reviewkd_warmup([epoch + 1], max(length, 1e-9))[0])

    def undivided(self) -> str:
        """Pooled sizes average over sentences, whatever their lengths."""
        return "averages over sentences and over tokens, of which slices have unequal shares"

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all stages."""
        assert teacher is not None
        fused: list[Tensor] = []
        residual: Tensor | None = None
        with exact(some(student)):
            for stage, x in zip(self.stages, picked(student, "hidden", layers_of(self.pairs, 0)), strict=True):
                out, residual = stage(x, residual)
                fused.append(out)
        theirs = targets(teacher, "hidden", layers_of(self.pairs, 1))
        return self.weight * hcl(fused, theirs, mask_for(batch, theirs[0]))
