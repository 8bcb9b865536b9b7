"""The residual networks for CIFAR (:mod:`kdexp.models.architectures.cifar_resnet`): they read images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdexp.models.families.base import Family

STAGES = 3


def places(blocks: int) -> list[tuple[int, bool]]:
    """Return (stage from 0, whether it is the stage's first) of each block."""
    each = blocks // STAGES
    return [(block // each, block % each == 0) for block in range(each * STAGES)]


@dataclass(frozen=True)
class CifarResNets(Family):
    """Three stages of equally many blocks; the channels double and the map halves from one to the next."""

    def misfits(self, sizes: dict[str, int | None]) -> list[str]:
        """See :meth:`Family.misfits`."""
        depth, width, wrong = sizes.get("num_layers"), sizes.get("hidden_size"), []
        if depth is not None and depth % STAGES:
            near = max(STAGES, depth - depth % STAGES)
            wrong.append(
                f"num_layers={depth}: three stages have equally many blocks, so it is a multiple of 3 (ResNet-"
                f"{2 * near + 2} has {near}, ResNet-{2 * near + 8} has {near + STAGES})"
            )
        if width is not None and width % 4:
            wrong.append(f"hidden_size={width}: the stages have a quarter, half and all of it; use a multiple of 4")
        return wrong

    def widths(self, num_layers: int, hidden_size: int) -> tuple[int, ...]:
        """See :meth:`Family.widths`: channels."""
        return tuple(hidden_size // 2 ** (STAGES - 1 - stage) for stage, _ in places(num_layers))

    def kinds(self, num_layers: int) -> list[Any]:
        """See :meth:`Family.kinds`: the stage, and whether the channels change here."""
        entered = [(stage, first and stage > 0) for stage, first in places(num_layers)]  # there the channels change
        return [f"stage {stage + 1}{', its first' if first else ''}" for stage, first in entered]


FAMILY = CifarResNets(blocks=("blocks",), reads="images", hidden=False, maps=True, dropout=False, batch_norm=True)
