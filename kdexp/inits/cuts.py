"""What cutting weights to a smaller width is made of: importances, what is kept, slices, low ranks.

Weights are (out, in), as in ``torch.nn.Linear``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def neuron_importance(activations: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Importance (W,) of what activations (B, L, W) measure: mean of |a| over tokens, squared, summed over B, root.

    Args:
        attention_mask: (B, L), 1 = real; None = every token counts.
    """
    sizes = activations.abs()
    if attention_mask is None:
        means = sizes.mean(1)
    else:
        mask = attention_mask.to(sizes.dtype)[..., None]
        means = (sizes * mask).sum(1) / mask.sum(1).clamp(min=1)
    return means.square().sum(0).sqrt()


def head_importance(activations: Tensor, heads: int, attention_mask: Tensor | None = None) -> Tensor:
    """Importance (H,) of heads: :func:`neuron_importance` of (B, L, H*d), then the L2 norm over each head's d."""
    return neuron_importance(activations, attention_mask).reshape(heads, -1).square().sum(-1).sqrt()


def keep_indices(importance: Tensor, keep: int, unit: int = 1) -> list[int]:
    """The ``keep`` most important positions (ties: lower first), ascending, each as ``unit`` consecutive dimensions."""
    order = importance.argsort(descending=True, stable=True)[:keep].tolist()
    return [position * unit + i for position in sorted(order) for i in range(unit)]


def slice_linear(
    weight: Tensor, rows: Sequence[int], columns: Sequence[int], bias: Tensor | None = None
) -> Tensor | list[Tensor]:
    """weight[rows][:, columns]; with a bias: [that, bias[rows]]."""
    part = weight[list(rows)][:, list(columns)]
    return part if bias is None else [part, bias[list(rows)]]


def factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(out, r) and (r, in) whose product is the best approximation of that rank; each takes the root of the values."""
    import torch

    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * v[:rank]


def pca_projector(rows: Tensor, rank: int, center: bool = True) -> Tensor:
    """P P^T (D, D) of the first ``rank`` principal directions of rows (N, D), columns centred unless told otherwise."""
    import torch

    x = rows - rows.mean(0) if center else rows
    _, _, v = torch.linalg.svd(x, full_matrices=False)
    return v[:rank].T @ v[:rank]
