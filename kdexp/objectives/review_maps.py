"""ReviewKD on maps of convolutions, as in the paper (Chen et al. 2021, arXiv 2104.09044)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.config.schema import Count, NotNegative
from kdexp.objectives.base import Batch, Context, Features, Objective
from kdexp.objectives.common import exact, layers_of, picked, some, targets, wide
from kdexp.objectives.review import Review, hcl

MAPS = "module:{block}.sum"
POOLED = "module:resnet.pool"


class MapFusion(nn.Module):
    """One level on the way from deep to shallow: mix with the deeper level's residual, map to the teacher's channels.

    Args:
        width, middle, out: channels of the student's map, inside, and of the teacher's.
        deepest: there is no residual.
    """

    def __init__(self, width: int, middle: int, out: int, deepest: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(width, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.gate = None if deepest else nn.Conv2d(2 * middle, 2, 1)
        self.outer = nn.Sequential(nn.Conv2d(middle, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map (B, width, H, W) to what is matched, (B, out, H, W), and to the next level's residual."""
        x = self.inner(x)
        if self.gate is not None:
            assert residual is not None
            residual = F.interpolate(residual, size=x.shape[-2:], mode="nearest")
            gates = self.gate(torch.cat([x, residual], 1)).sigmoid()
            x = x * gates[:, :1] + residual * gates[:, 1:]
        return self.outer(x), x


class ReviewMaps(Review):
    """Warm-up weight * sum over levels of :func:`~kdexp.objectives.review.hcl` between fused maps and the teacher's.

    Levels are the matched layers' maps before their last ReLU, and the pooled map, from deep to shallow: with three
    stages the paper's four. Reduction: mean over images, channels and pixels of a level. Mask: none. Power of T: none.
    The maps of a pair need equal heights. Its normalisations see one micro-batch at a time.

    Args:
        middle: channels inside the fusion; null = min(512, the student's last ones), as released.
        warmup_epochs: epochs until full weight; null = 1/12 of the phase (20 of 240 in the paper).
    """

    needs: ClassVar[tuple[str, ...]] = (MAPS, POOLED)
    needs_maps: ClassVar[bool] = True

    def __init__(self, middle: Count | None = None, warmup_epochs: NotNegative | None = None) -> None:
        super().__init__(middle, warmup_epochs)

    def setup(self, context: Context) -> None:
        Objective.setup(self, context)
        student, teacher = context.student, context.teacher
        assert teacher is not None
        self.pairs = sorted(self.pairs, reverse=True)
        middle = self.middle or min(512, student.hidden_size)
        levels = [(student.hidden_size, teacher.hidden_size)]
        levels += [(student.widths[mine - 1], teacher.widths[its - 1]) for mine, its in self.pairs]
        self.stages = nn.ModuleList(MapFusion(w, middle, out, deepest=i == 0) for i, (w, out) in enumerate(levels))

    def undivided(self) -> str:
        """Its normalisations look at all images of a micro-batch."""
        return "normalises over the images of a batch"

    def reads(self) -> str:
        """Whole maps: they are not stored."""
        return "all"

    def units(self, batch: Batch) -> Tensor:
        """Images."""
        return batch.index.new_tensor(len(batch))

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all levels."""
        assert teacher is not None
        mine = [wide(student[POOLED]), *picked(student, MAPS, layers_of(self.pairs, 0))]
        its = [wide(teacher[POOLED].detach()), *targets(teacher, MAPS, layers_of(self.pairs, 1))]
        fused: list[Tensor] = []
        residual: Tensor | None = None
        with exact(some(student)):
            for stage, x in zip(self.stages, mine, strict=True):
                out, residual = stage(x, residual)
                fused.append(out)
        return self.weight * hcl(fused, its)
