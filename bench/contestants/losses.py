"""The four objectives in plain PyTorch, as papers' code writes them, padding left out.

``outputs`` are those of transformers: ``logits``, ``hidden_states`` (embedding output first), ``attentions``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def kd(student: Any, teacher: Any, inputs: dict[str, Tensor], term: dict[str, Any]) -> Tensor:
    """Hard labels and the softened distance of logits."""
    temperature, alpha = term["temperature"], term["alpha"]
    soft = F.kl_div(
        F.log_softmax(student.logits / temperature, -1), F.softmax(teacher.logits / temperature, -1),
        reduction=term["reduction"],
    )  # fmt: skip
    return (1 - alpha) * F.cross_entropy(student.logits, inputs["labels"]) + alpha * temperature**2 * soft


def hid_seq(student: Any, teacher: Any, inputs: dict[str, Tensor], term: dict[str, Any]) -> Tensor:
    """Squared error of matched hidden states."""
    pairs = term["pairs"]
    return sum(hidden(student.hidden_states[s], teacher.hidden_states[t], inputs["attention_mask"]) for s, t in pairs)


def hidden(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over real tokens of two (B, L, D)."""
    return (F.mse_loss(student, teacher, reduction="none") * mask[..., None]).sum() / (mask.sum() * student.shape[-1])


def att_kl(student: Any, teacher: Any, inputs: dict[str, Tensor], term: dict[str, Any]) -> Tensor:
    """Divergence of matched attention maps."""
    pairs = term["pairs"]
    return sum(maps(student.attentions[s - 1], teacher.attentions[t - 1], inputs["attention_mask"]) for s, t in pairs)


def maps(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(teacher row || student row) of probabilities (B, H, L, L), mean over real rows and heads."""
    rows = (torch.xlogy(teacher, teacher) - teacher * student.clamp_min(1e-7).log()).sum(-1)
    real = mask[:, None, :].to(rows.dtype)
    return (rows * real).sum() / (real.sum() * rows.shape[1])


def patience(student: Any, teacher: Any, inputs: dict[str, Tensor], term: dict[str, Any]) -> Tensor:
    """Squared distance of normalised [CLS] vectors of matched layers."""
    pairs = term["pairs"]
    ours, theirs = (
        F.normalize(torch.stack([states[pair[side]][:, 0] for pair in pairs], 1), dim=-1)
        for side, states in ((0, student.hidden_states), (1, teacher.hidden_states))
    )
    return F.mse_loss(ours, theirs)


TERMS = {"kd": kd, "hid_seq": hid_seq, "att_kl": att_kl, "patience": patience}


def total(student: Any, teacher: Any, inputs: dict[str, Tensor], terms: dict[str, dict[str, Any]]) -> Tensor:
    """Return the weighted sum of an objective's terms."""
    return sum(term["weight"] * TERMS[name](student, teacher, inputs, term) for name, term in terms.items())
