"""Formulas of papers that kdexp checks itself against; training calls none of them.

Each puts into one number what training does in pieces, is a limit that a loss must reach, or counts what a model must
have. They are written with the functions that training calls wherever there is one, so that a reference value pins
both. :mod:`kdexp.cli.vectors` finds them here by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.heads.batch import Batch
from kdexp.heads.classification import LABEL, Classification, cross_entropy
from kdexp.inits.cuts import factors
from kdexp.inits.ptp import ptp_confidence, ptp_labels
from kdexp.objectives.common import over_layers, scaled_scores, split_heads, wide
from kdexp.objectives.continuation import continuation_soft
from kdexp.objectives.dpk import ema_step
from kdexp.objectives.hid_cls_contrast import contrastive_step
from kdexp.objectives.hidden_cosine import hidden_cosine
from kdexp.objectives.kd import kd_total, logit_kl
from kdexp.objectives.lgtm import teacher_loss
from kdexp.objectives.patience import patience
from kdexp.objectives.ted import ted_layer_mse


def logit_kl_limit(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Limit of T^2 * KL (batchmean) for T to infinity: mean of sum_c (d_c - mean d)^2 / (2C), d = teacher - student."""
    gap = wide(teacher_logits) - wide(student_logits)
    gap = gap - gap.mean(-1, keepdim=True)
    return (gap.square().sum(-1) / (2 * gap.shape[-1])).mean()


def vanilla_kd_total(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float,
    a: float,
    divide_by_sentences: bool,
) -> Tensor:
    """How to Distill your BERT, released code: :func:`kd_total` summed over the batch, or that divided by B."""
    total = kd_total(student_logits, teacher_logits, labels, alpha=a, temperature=temperature, reduction="sum")
    return total / len(labels) if divide_by_sentences else total


def pkd_total(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    student_cls: Tensor,
    teacher_cls: Tensor,
    alpha: float,
    beta: float,
    temperature: float,
    kl_reduction: str = "mean",
    normalize: bool = True,
) -> Tensor:
    """(1-alpha)*CE + alpha*T^2*KL + beta*patience: what the terms ``kd`` and ``patience`` add up to in one phase."""
    labelled = kd_total(student_logits, teacher_logits, labels, alpha, temperature, kl_reduction)
    return labelled + beta * patience(student_cls, teacher_cls, normalize)


def contrastive_nce(
    student_features: Tensor,
    teacher_features: Tensor,
    student_bank: Tensor,
    teacher_bank: Tensor,
    indices: Tensor,
    temperature: float = 0.07,
) -> Tensor:
    """:func:`contrastive_step` of the first batch, which sets the normalisers."""
    unset = wide(student_features).new_full((2,), -1.0)
    return contrastive_step(
        student_features, teacher_features, student_bank, teacher_bank, indices, temperature, unset
    )[0]


def ted_stage2_total(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    layers: list[dict[str, Tensor]],
    kl_alpha: float,
    mse_alpha: float,
) -> Tensor:
    """CE + kl_alpha * KL (T = 2, batchmean, T^2) + mse_alpha * mean over layers: what TED's three terms add up to."""
    hard = cross_entropy(student_logits, labels)
    soft = kd_total(student_logits, teacher_logits, labels, alpha=1.0, temperature=2.0)
    return hard + kl_alpha * soft + mse_alpha * cast(Tensor, ted_layer_mse(layers))


def ted_qa_kl(student_start: Tensor, teacher_start: Tensor, student_end: Tensor, teacher_end: Tensor) -> Tensor:
    """Half the sum of T^2 * KL (T = 2, batchmean) over start and end logits (B, L), padding positions included."""
    start = logit_kl(student_start, teacher_start, 2.0)
    return (start + logit_kl(student_end, teacher_end, 2.0)) / 2


def ted_filter_positions(layers: int, interval: int) -> list[int]:
    """0-based layers that carry a filter in TED's code: j with (j+1) divisible by the interval."""
    return [j for j in range(layers) if (j + 1) % interval == 0]


def ema(start: float, similarities: Sequence[float]) -> list[float]:
    """DPK's ratio after each similarity in turn, from ``start`` by :func:`ema_step`."""
    ratios = []
    for similarity in similarities:
        start = ema_step(start, similarity)
        ratios.append(start)
    return ratios


def ptp_labels_from_logits(teacher_logits: Tensor, labels: Tensor, t1: float, t2: float) -> Tensor:
    """:func:`ptp_labels` of teacher logits (n, C) and true labels (n,)."""
    return ptp_labels(*ptp_confidence(teacher_logits, labels), t1, t2)


def attention_logits(
    hidden: Tensor, wq: Tensor, bq: Tensor, wk: Tensor, bk: Tensor, heads: int, swap_qk: bool = False
) -> Tensor:
    """Scores q k^T / sqrt(d) of hidden states (B, L, D) without mask, (B, heads, L, L); y = x W^T + b.

    Args:
        swap_qk: exchange the two projections, as SPS does in its second pass.
    """
    query, key = F.linear(hidden, wq, bq), F.linear(hidden, wk, bk)
    if swap_qk:
        query, key = key, query
    return scaled_scores(split_heads(query, heads), split_heads(key, heads))


def bert_parameter_count(
    layers: int,
    hidden: int,
    ffn: int,
    vocab: int,
    positions: int = 512,
    types: int = 2,
    pooler: bool = True,
    num_labels: int = 0,
) -> int:
    """Parameters of a BERT encoder, from its sizes alone.

    Embeddings (vocab + positions + types)*h + 2h; each layer 4(h*h + h) + (h*f + f) + (f*h + h) + 4h; pooler
    h*h + h; classifier num_labels*(h + 1).

    Args:
        layers: layers that own parameters (shared ones count once).
        num_labels: outputs of the classifier, 0 = none.
    """
    embeddings = (vocab + positions + types) * hidden + 2 * hidden
    layer = 4 * (hidden * hidden + hidden) + (hidden * ffn + ffn) + (ffn * hidden + hidden) + 4 * hidden
    top = (hidden * hidden + hidden if pooler else 0) + num_labels * (hidden + 1)
    return embeddings + layers * layer + top


def annealing_mse(student_logits: Tensor, teacher_logits: Tensor, factor: float | Tensor) -> Tensor:
    """Mean over all B*C logits of (student - factor * teacher)^2."""
    return (wide(student_logits) - factor * wide(teacher_logits)).square().mean()


def continuation_total(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    psi: float | Tensor,
    phi: float | Tensor,
    margin: float,
    variant: str = "per_sample_squared_norm",
) -> Tensor:
    """psi * cross entropy (mean) + (1 - psi) * :func:`continuation_soft`."""
    soft = continuation_soft(student_logits, teacher_logits, phi, margin, variant)
    return psi * cross_entropy(student_logits, labels) + (1 - psi) * soft


def lgtm_teacher_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, a_t: float = 0.4, temperature: float = 1.0
) -> Tensor:
    """:func:`teacher_loss` of classes: a_t * KL(student || teacher) (mean over sentences) + (1-a_t) * CE(teacher)."""
    head = Classification([str(c) for c in range(teacher_logits.shape[-1])])
    batch = Batch({}, None, {LABEL: labels}, torch.arange(len(labels)))
    return teacher_loss(head, {"logits": student_logits}, {"logits": teacher_logits}, batch, a_t, temperature)


def ted_stage1(filter_logits: list[Tensor], labels: Tensor) -> Tensor:
    """Mean over filters of the mean cross entropy of each filter head's logits (B, C)."""
    losses = [cross_entropy(logits, labels) for logits in filter_logits]
    return over_layers(losses, "mean", losses[0])


def distilbert_total(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    attention_mask: Tensor,
    alpha_ce: float = 5.0,
    alpha_mlm: float = 2.0,
    alpha_cos: float = 1.0,
    temperature: float = 2.0,
    restrict_to_mask: bool = False,
) -> Tensor:
    """DistilBERT's three terms: soft labels (T^2 * KL), masked tokens' cross entropy, cosine of hidden states.

    Args:
        student_logits, teacher_logits: (B, L, V).
        labels: (B, L), -100 = not masked.
        restrict_to_mask: soft labels at masked positions only; else at all real ones.
    """
    masked = labels != -100
    chosen = masked if restrict_to_mask else attention_mask.bool()
    soft = logit_kl(student_logits[chosen], teacher_logits[chosen], temperature)
    hard = cross_entropy(student_logits[masked], labels[masked]) if bool(masked.any()) else soft * 0.0
    cosine = hidden_cosine(student_hidden, teacher_hidden, attention_mask)
    return alpha_ce * soft + alpha_mlm * hard + alpha_cos * cosine


def low_rank(weight: Tensor, rank: int) -> Tensor:
    """The best approximation of that rank: the product of :func:`factors`."""
    left, right = factors(weight, rank)
    return left @ right
