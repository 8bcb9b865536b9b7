"""WID: the narrow student that trained compactors leave (Wu et al., NAACL 2024 findings, arXiv 2305.09098; code).

Every linear map gets a row and a column compactor, identities at the start; columns of small norm are cut, the rest is
merged into a smaller map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdexp.config.schema import Epochs, Rate
from kdexp.inits.narrow import Narrow

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 16
"""In which everything is cut."""


@dataclass(frozen=True)
class WID(Narrow):
    """A narrow student by trained compactors (the stage :mod:`kdexp.methods.wid`).

    Attributes:
        epochs, learning_rate: of that stage; None = as the student's recipe. 5e-5 is the source's learning rate.
    """

    method: ClassVar[str | None] = "wid"

    epochs: Epochs | None = None
    learning_rate: Rate | None = 5e-5

    @property
    def needs_teacher(self) -> bool:
        """Always: the stage starts from it."""
        return True

    def problems(self) -> list[str]:
        """Say what is wrong with the settings themselves."""
        found = super().problems()
        if self.head:
            found.append("init.head=true: the head that init=wid trains with its compactors is not cut; use false.")
        if not self.pooler:
            found.append(
                "init.pooler=false has no effect with init=wid, which trains and cuts the pooler too; use true."
            )
        return found


def wid_merge(
    weight: Tensor,
    bias: Tensor,
    row: Tensor,
    column: Tensor,
    keep_rows: Sequence[int],
    keep_columns: Sequence[int],
) -> list[Tensor]:
    """[(R W C)[keep_rows, keep_columns], (R b)[keep_rows]] of weight W (out, in), bias b, compactors R and C."""
    merged = row @ weight @ column
    return [merged[list(keep_rows)][:, list(keep_columns)], (row @ bias)[list(keep_rows)]]


def wid_cut(step: int, every: int, hidden: int, target: int, factor: int = 1, rounds: int = ROUNDS) -> int:
    """Dimensions cut at a step: it grows every ``every`` steps over ``rounds`` rounds to (hidden - target) * factor."""
    whole = hidden - target
    return int(min(int(step / every) * whole / rounds, whole) * factor)


def wid_keep(compactor: Tensor, cut: int, heads: int = 1) -> list[int]:
    """Columns that stay, ascending: of ``heads`` equal blocks the ``cut`` of smallest norm go (ties: lower)."""
    norms = compactor.square().sum(0).sqrt().reshape(heads, -1)
    size = norms.shape[1]
    kept: list[int] = []
    for block in range(heads):
        gone = set(norms[block].argsort(stable=True)[:cut].tolist())
        kept += [block * size + i for i in range(size) if i not in gone]
    return kept
