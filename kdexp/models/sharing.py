"""Shuffled parameter sharing (SPS) of Pea-KD (arXiv 2009.14822): more effective layers at equal parameter count.

Plans and identities that need no torch; the modules that run a layer again are in :mod:`kdexp.models.shared_layers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

KINDS = ("none", "sps1", "sps2")


def sps_plan(layers: int, swap: bool = True) -> list[tuple[int, bool]]:
    """The order in which a student with ``layers`` own layers runs them: (0-based layer, query/key exchanged?).

    Every layer once, then again with the exchange; of 6 layers only the top three run again (9 effective layers).

    Args:
        swap: exchange the query and key projections in the second pass (``sps2``); False is ``sps1``.
    """
    if layers < 1:
        raise ValueError(f"parameter sharing needs at least 1 own layer; got {layers}")
    again = range(3, 6) if layers == 6 else range(layers)
    return [(i, False) for i in range(layers)] + [(i, swap) for i in again]


def effective_layers(layers: int, sharing: str = "none") -> int:
    """Layers that a student with ``layers`` own layers runs; ``sharing`` is ``none``, ``sps1`` or ``sps2``.

    Raises:
        ValueError: for an unknown kind of sharing.
    """
    if sharing not in KINDS:
        raise ValueError(f"sharing={sharing!r} is not known; choose none, sps1 or sps2")
    return layers if sharing == "none" else len(sps_plan(layers, sharing == "sps2"))


def share(model: nn.Module, kind: str) -> None:
    """Turn a student with k own layers into one that runs :func:`sps_plan`, in place; see :mod:`kdexp.models.shared_layers`."""
    from kdexp.models.shared_layers import share as carry_out

    carry_out(model, kind)
