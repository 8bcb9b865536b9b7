"""Two views of a text, clean and noisy: what inconsistent distillation on perturbed text is made of (ours for text)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdexp.heads.common import choice

MODES = ("delete", "mask")


def token_noise(
    input_ids: Tensor,
    attention_mask: Tensor,
    special: Tensor,
    drop: Tensor,
    replacement: Tensor,
    mode: str = "delete",
    pad_id: int = 0,
    mask_id: int = 103,
) -> list[Tensor]:
    """Drop or replace ordinary tokens of ids (B, L); returns [ids, attention mask] of the same length.

    Args:
        special: (B, L), 1 = never touched, as padding is not.
        drop: (B, L), 1 = removed (``delete``: the rest moves left) or replaced by ``mask_id`` (``mask``).
        replacement: (B, L), at least 0 = the id that takes the token's place, unless it is dropped.
    """
    choice("mode", mode, MODES)
    ordinary = attention_mask.bool() & ~special.bool()
    gone = ordinary & drop.bool()
    ids = torch.where(ordinary & ~gone & (replacement >= 0), replacement.to(input_ids.dtype), input_ids)
    if mode == "mask":
        return [torch.where(gone, mask_id, ids), attention_mask]
    stays = attention_mask.bool() & ~gone
    order = (~stays).long().argsort(dim=1, stable=True)
    kept = stays.gather(1, order)
    return [torch.where(kept, ids.gather(1, order), pad_id), kept.to(attention_mask.dtype)]
