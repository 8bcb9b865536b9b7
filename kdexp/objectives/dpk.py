"""DPK adapted to tokens: rebuild the teacher's states from a mix of both (Qiu et al. 2022, arXiv 2206.06067).

Only the abstract and a derived module are known; the rebuild module, weights and the adaptation are ours.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from kdexp.config.schema import Count, Depth, Part, Seed
from kdexp.objectives.base import Batch, Context, Features
from kdexp.objectives.common import OfTokens, exact, layers_of, mask_for, over_layers, picked, some, targets
from kdexp.objectives.hid_seq import hidden_mse
from kdexp.objectives.noise import uniform

Number = TypeVar("Number", float, Tensor)


def ema_step(ratio: Number, similarity: Number) -> Number:
    """0.9 * ratio + 0.1 * similarity."""
    return 0.9 * ratio + 0.1 * similarity


def linear_cka(x: Tensor, y: Tensor, attention_mask: Tensor) -> Tensor:
    """Linear CKA of states (B, L, D_x) and (B, L, D_y) over real tokens, a scalar in [0, 1]."""
    mask = attention_mask.to(x.dtype)[..., None]
    with exact(x):
        sides = []
        for z in (x, y):
            centred = (z - (z * mask).sum((0, 1)) / mask.sum()) * mask
            sides.append(centred.flatten(0, 1))
        a, b = sides
        cross = (a.T @ b).square().sum()
        return cross / ((a.T @ a).square().sum() * (b.T @ b).square().sum()).sqrt().clamp(min=1e-12)


class Rebuild(nn.Module):
    """A small transformer, (B, L, D) to (B, L, D), without dropout."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.head = nn.Linear(width, width)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """Rebuild states; ``padding`` (B, L) is True where no token is."""
        for block in self.blocks:
            x = block(x, src_key_padding_mask=padding)
        return self.head(x)


class DPK(OfTokens):
    """Sum over matched layers of the mean over real tokens times D of (rebuilt - teacher)^2.

    A token's state is the teacher's if U(0,1) > ratio, else the student's (mapped to the teacher's width); a small
    transformer rebuilds the whole. The ratio follows the similarity (CKA) of both, so that a student that resembles
    its teacher gets less of it.

    Args:
        start: first ratio.
        depth: layers of the rebuild module.
        heads: its attention heads, a divisor of the teacher's width.
        seed: of the replaced positions.
    """

    needs: ClassVar[tuple[str, ...]] = ("hidden",)
    answers: ClassVar[bool] = False
    layers: ClassVar[str] = "attention"

    epoch: Tensor
    ratios: Tensor

    def __init__(self, start: Part = 0.5, depth: Depth = 1, heads: Count = 4, seed: Seed = 0) -> None:
        super().__init__()
        self.start, self.depth, self.heads, self.seed = start, depth, heads, seed
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def setup(self, context: Context) -> None:
        super().setup(context)
        assert context.teacher is not None
        width, out = context.student.hidden_size, context.teacher.hidden_size
        if out % self.heads:
            raise ValueError(f"dpk.heads={self.heads} must divide the teacher's width {out}. Choose a divisor")
        self.maps = nn.ModuleList(nn.Linear(width, out) for _ in self.pairs)
        self.rebuild = nn.ModuleList(Rebuild(out, self.depth, self.heads) for _ in self.pairs)
        self.register_buffer("ratios", torch.full((len(self.pairs),), float(self.start)))

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Replace other positions from now on."""
        self.epoch.fill_(epoch)

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss over all matched layers; in training, also let the ratios follow."""
        assert teacher is not None
        ours = picked(student, "hidden", layers_of(self.pairs, 0))
        theirs = targets(teacher, "hidden", layers_of(self.pairs, 1))
        mask = mask_for(batch, theirs[0])
        losses, similar = [], []
        with exact(some(student)):
            for i, (s, t) in enumerate(zip(ours, theirs, strict=True)):
                mapped = self.maps[i](s)
                noise = uniform(self.seed + i, self.epoch, batch.index, mask.shape[1])
                state = torch.where((noise > self.ratios[i])[..., None], t, mapped)
                losses.append(hidden_mse(self.rebuild[i](state, ~mask.bool()), t, mask))
                similar.append(linear_cka(mapped.detach(), t, mask))
        if self.training and similar:
            self.ratios.copy_(ema_step(self.ratios, torch.stack(similar)))
        return over_layers(losses, "sum", some(student))
