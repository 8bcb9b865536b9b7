"""What several objectives share: precision, masks, reductions over layers. Shapes as in ``base.py``."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdexp.heads.common import choice, wide
from kdexp.objectives.base import Batch, Features, Objective, Pairs

__all__ = ["choice", "wide"]


def idle(because: str, settings: Mapping[str, tuple[object, object]]) -> None:
    """Refuse settings that were given where they have no effect.

    Args:
        because: the setting that makes them idle, such as ``unbiased.form=pairs``.
        settings: what was given and the default, by name.

    Raises:
        ValueError: naming all that differ from their default.
    """
    given = [f"{name}={value}" for name, (value, default) in settings.items() if value != default]
    if given:
        raise ValueError(f"{' and '.join(given)} has no effect with {because}: leave it out")


def exact(x: Tensor) -> torch.autocast:
    """A context without autocast on the device of ``x``, so that matrix products of a loss keep float32."""
    return torch.autocast(x.device.type, enabled=False)


def some(features: Features) -> Tensor:
    """The first of the features (a head's output): for its device, or for a zero that hangs on the graph."""
    return next(iter(features.values()))


def picked(features: Features, kind: str, layers: list[int]) -> list[Tensor]:
    """The features ``kind.J`` of the given layers (1-based, 0 = embedding output), wide."""
    return [wide(features[f"{kind}.{layer}"]) for layer in layers]


def targets(features: Features, kind: str, layers: list[int]) -> list[Tensor]:
    """As :func:`picked`, cut from the graph: what a teacher gives is a constant."""
    return [x.detach() for x in picked(features, kind, layers)]


def layers_of(pairs: Pairs, side: int) -> list[int]:
    """Column ``side`` (0 student, 1 teacher) of matched layers."""
    return [pair[side] for pair in pairs]


def over_layers(losses: list[Tensor], reduce: str, like: Tensor) -> Tensor:
    """Sum or mean of one loss a layer; a zero that carries a (zero) gradient if no layer is matched.

    ``sum`` is what How to Distill your BERT does, ``mean`` what TED and PKD do: a weight belongs to one of them.
    """
    if not losses:
        return wide(like).sum() * 0.0
    total = torch.stack(losses).sum()
    return total / len(losses) if reduce == "mean" else total


def real_tokens(batch: Batch) -> Tensor:
    """Number of real tokens of a batch, a scalar tensor; of examples, where none is padded (all are then as long)."""
    return batch.index.new_tensor(len(batch)) if batch.mask is None else batch.mask.sum()


def all_tokens(batch: Batch) -> Tensor:
    """B*L of a batch, padding included, a scalar tensor; B where nothing is padded."""
    return batch.index.new_tensor(len(batch)) if batch.mask is None else torch.ones_like(batch.mask).sum()


class OfTokens(Objective):
    """A loss that averages over real tokens; with another ``variant``, over padding too, as some released code does."""

    variant = "pad_aware"

    def reads(self) -> str:
        """Padding only as coded."""
        return "real" if self.variant == "pad_aware" else "all"

    def units(self, batch: Batch) -> Tensor:
        """Real tokens (all tokens as coded)."""
        return real_tokens(batch) if self.variant == "pad_aware" else all_tokens(batch)


def mask_for(batch: Batch, like: Tensor) -> Tensor:
    """The batch's mask (B, L), or one that is all 1 for features (B, L, D) or (B, H, L, d) of data without padding."""
    if batch.mask is not None:
        return batch.mask
    return torch.ones(like.shape[0], like.shape[-2], dtype=torch.long, device=like.device)


def token_mean(values: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Mean of (B, L, D) values over real tokens times D; over all elements without a mask."""
    if attention_mask is None:
        return values.mean()
    mask = attention_mask.to(values.dtype)
    return (values * mask[..., None]).sum() / (mask.sum() * values.shape[-1])


def mask_of(variant: str, attention_mask: Tensor | None) -> Tensor | None:
    """The mask that a variant averages with: the batch's for ``pad_aware``, none otherwise.

    Raises:
        ValueError: if ``pad_aware`` has no mask.
    """
    if variant == "pad_aware" and attention_mask is None:
        raise ValueError("variant=pad_aware needs an attention mask (B, L); give one, or take as_coded")
    return attention_mask if variant == "pad_aware" else None


def alive(x: Tensor) -> Tensor:
    """``x`` (..., D) whose rows of no length (at most 1e-12) are constants: the same value, and no gradient there.

    A loss that divides by a row's length has gradients of 1e9 and more, or NaN, at zero vectors and duplicates.
    """
    return torch.where(x.square().sum(-1, keepdim=True) <= 1e-24, x.detach(), x)


def unit(x: Tensor) -> Tensor:
    """Rows of ``x`` (..., D) scaled to length 1; rows of no length stay zero and get no gradient."""
    x = alive(x)
    return x / x.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-12)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, D) to (B, heads, L, D/heads)."""
    batch, length, width = x.shape
    return x.reshape(batch, length, heads, width // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, L, d) to (B, L, H*d): the inverse of :func:`split_heads`."""
    batch, heads, length, size = x.shape
    return x.transpose(1, 2).reshape(batch, length, heads * size)


def scaled_scores(query: Tensor, key: Tensor) -> Tensor:
    """Attention scores q k^T / sqrt(d) before mask and softmax, (B, H, L, L), in float32 also under autocast."""
    with exact(query):
        query, key = wide(query), wide(key)
        return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5


def row_kl(student: Tensor, teacher: Tensor, mask: Tensor | None, pad_rows: bool, floor: float | None) -> Tensor:
    """KL(softmax(teacher row) || softmax(student row)) of scores (B, H, L, L), averaged over rows.

    Args:
        student, teacher: scores before softmax.
        mask: (B, L), 1 = real; its padded keys get probability 0 on both sides. None: every key counts.
        pad_rows: True averages over all B*H*L rows, False over the rows of real queries (times heads).
        floor: student probabilities below it count as this value; None = no clamp.
    """
    student, teacher = wide(student), wide(teacher).detach()
    keys = None if mask is None else mask.bool()[:, None, None, :]
    log_q, log_p = (_log_softmax(scores, keys) for scores in (student, teacher))
    if floor is not None:
        log_q = log_q.clamp(min=math.log(floor))
    p = log_p.exp() if keys is None else log_p.exp().masked_fill(~keys, 0.0)
    rows = (p * (log_p - log_q)).sum(-1)
    if pad_rows or mask is None:
        return rows.mean()
    weight = mask.to(rows.dtype)[:, None, :]
    return (rows * weight).sum() / (weight.sum() * rows.shape[1])


def _log_softmax(scores: Tensor, keys: Tensor | None) -> Tensor:
    """Log probabilities over keys; masked keys give 0 there (their probability is dropped by the caller)."""
    if keys is None:
        return scores.log_softmax(-1)
    return scores.masked_fill(~keys, float("-inf")).log_softmax(-1).masked_fill(~keys, 0.0)


def need_equal_heads(objective: nn.Module, student_heads: int, teacher_heads: int, remedy: str) -> None:
    """Refuse unequal head counts where heads are compared one by one.

    Raises:
        ValueError: with both counts and the remedy.
    """
    if student_heads != teacher_heads:
        raise ValueError(
            f"{type(objective).__name__} compares heads one by one: the student has {student_heads}, "
            f"the teacher {teacher_heads}. {remedy}"
        )
