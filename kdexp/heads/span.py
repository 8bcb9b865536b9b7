"""A span of the input: where an answer begins and where it ends.

Legend: B windows, L padded length, N the best spans that are kept.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.heads.base import FORMS, REDUCTIONS, Head
from kdexp.heads.batch import Batch, Features, Predictions, Targets
from kdexp.heads.common import choice, wide

SIDES = ("start", "end")
"""Names of the labels: positions of an answer's first and last token, (B,) int64; the null position: no answer."""
CONTEXT = "context"
"""Name of the mask (B, L) of positions that may be answers: the context's tokens, and the null position."""
NULL = "null"
"""Name of the position that stands for no answer (the first token), (B,) int64."""
VARIANTS = ("pad_aware", "as_coded")


class Span(Head):
    """Logits ``start_logits`` and ``end_logits`` (B, L); the answer is the pair with the highest sum.

    Args:
        n_best: starts and ends that are paired, and pairs that are kept.
        max_answer_tokens: longer pairs are no answers.
        variant: ``pad_aware`` = a softmax runs over the context and the null position alone; ``as_coded`` = over all
            positions, question and padding included, as transformers' models and TED's released code have it.
    """

    name: ClassVar[str] = "span"
    auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    abilities: ClassVar[frozenset[str]] = frozenset({"distributions", "positions", "small"})
    names: ClassVar[tuple[str, ...]] = ("start_logits", "end_logits")
    weights: ClassVar[str] = "qa_outputs"

    def __init__(self, n_best: int = 20, max_answer_tokens: int = 30, variant: str = "pad_aware") -> None:
        choice("variant", variant, VARIANTS)
        self.n_best, self.max_answer_tokens, self.variant = n_best, max_answer_tokens, variant

    @property
    def width(self) -> int:
        """Two numbers a position."""
        return 2

    @property
    def reads_padding(self) -> bool:
        """Only as coded."""
        return self.variant == "as_coded"

    def model_config(self) -> dict[str, Any]:
        """Return two outputs a position, without names of classes."""
        return {"num_labels": 2}

    def _asked(self, batch: Batch) -> Tensor | None:
        """Return the positions (B, L) that a softmax runs over; None = all."""
        return None if self.variant == "as_coded" else batch.labels[CONTEXT]

    def loss(self, outputs: Features, batch: Batch, reduction: str = "mean") -> Tensor:
        """Return the mean of the cross entropies of start and end: over windows, or their sum."""
        choice("reduction", reduction, ("mean", "sum"))
        asked = self._asked(batch)
        losses = [
            F.nll_loss(log_probabilities(outputs[name], asked), batch.labels[side], reduction=reduction)
            for name, side in zip(self.names, SIDES, strict=True)
        ]
        return (losses[0] + losses[1]) / 2

    def soft_loss(
        self,
        student: Features,
        teacher: Features,
        batch: Batch,
        temperature: float = 1.0,
        form: str = "kl",
        reduction: str = "batchmean",
        times_T2: bool = True,
    ) -> Tensor:
        """Return the mean of the divergences of start and end from the teacher's distributions over positions.

        ``batchmean`` divides by windows, ``mean`` by the positions that take part.
        """
        choice("form", form, FORMS)
        choice("reduction", reduction, REDUCTIONS)
        asked, total = self._asked(batch), wide(student[self.names[0]]).new_zeros(())
        for name in self.names:
            log_q = log_probabilities(wide(student[name]) / temperature, asked)
            log_p = log_probabilities(wide(teacher[name].detach()) / temperature, asked)
            p = log_p.exp() if asked is None else log_p.exp() * asked
            total = total + (p * ((log_p if form == "kl" else 0.0) - log_q)).sum() / len(self.names)
        if reduction != "sum":
            total = total / (log_q.shape[0] if reduction == "batchmean" else _count(log_q, asked))
        return total * temperature**2 if times_T2 else total

    def squared_error(self, student: Features, teacher: Features, batch: Batch, factor: float | Tensor = 1.0) -> Tensor:
        """Return the mean of (student - factor * teacher)^2 over the positions of a window, sides and windows."""
        asked, means = self._asked(batch), []
        for name in self.names:
            gap = (wide(student[name]) - factor * wide(teacher[name].detach())).square()
            means.append(gap.mean() if asked is None else ((gap * asked).sum(-1) / asked.sum(-1)).mean())
        return (means[0] + means[1]) / 2

    @torch.no_grad()
    def predictions(self, outputs: Features, batch: Batch) -> dict[str, Tensor]:
        """Return the best pairs of each window, the best first.

        As transformers' post-processing has it: the ``n_best`` highest starts with the ``n_best`` highest ends, of
        which those count that lie in the context, in order and within the longest answer.

        Returns:
            ``spans`` (B, N, 2) positions, ``scores`` (B, N) sums of logits, -inf where there are no more pairs, and
            ``null`` (B,), that of no answer.
        """
        null = batch.labels[NULL]
        words = batch.labels[CONTEXT].bool().scatter(1, null[:, None], False)
        start, end = (wide(outputs[name]) for name in self.names)
        most = min(self.n_best, start.shape[1])
        first, last = (side.masked_fill(~words, -torch.inf).topk(most, dim=1) for side in (start, end))
        length = last.indices[:, None, :] - first.indices[:, :, None] + 1
        sums = first.values[:, :, None] + last.values[:, None, :]
        sums = sums.masked_fill((length < 1) | (length > self.max_answer_tokens), -torch.inf).flatten(1)
        sums = F.pad(sums, (0, max(0, self.n_best - sums.shape[1])), value=-torch.inf)
        best = sums.topk(self.n_best, dim=1)
        pair = best.indices.clamp(max=most * most - 1)
        spans = torch.stack([first.indices.gather(1, pair // most), last.indices.gather(1, pair % most)], dim=-1)
        nothing = start.gather(1, null[:, None]) + end.gather(1, null[:, None])
        return {"spans": spans.int(), "scores": best.values.float(), "null": nothing[:, 0].float()}

    def decided(self, outputs: Features, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`Head.decided`: the best span of each window, or the null position where that scores higher."""
        best, null = self.predictions(outputs, batch), batch.labels[NULL]
        none = best["null"] >= best["scores"][:, 0]
        places = torch.where(none[:, None], null[:, None], best["spans"][:, 0].long())
        return dict(zip(SIDES, places.unbind(-1), strict=True))

    def trivial(self, train: Targets, like: Targets) -> Predictions:
        """Return no answer for everything: who never looks at an input knows no position in it."""
        n = len(next(iter(like.values())))
        return {
            "span": np.zeros((n, 2), np.int32),
            "score": np.full(n, -np.inf, np.float32),
            "null": np.zeros(n, np.float32),
        }

    def small(self, width: int, dropout: float) -> nn.Module:
        """Make a linear map to the two logits of every position (TED's filters for questions), behind dropout."""
        return Positions(width, dropout)


class Positions(nn.Sequential):
    """Dropout and a linear map to two numbers a position.

    Args:
        width: of the hidden states.
        dropout: before the map.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(nn.Dropout(dropout), nn.Linear(width, 2))

    def forward(self, hidden_BLD: Tensor) -> dict[str, Tensor]:
        """Return the outputs of :class:`Span` for hidden states (B, L, width)."""
        both = super().forward(hidden_BLD)
        return dict(zip(Span.names, both.unbind(-1), strict=True))


def log_probabilities(logits: Tensor, asked: Tensor | None) -> Tensor:
    """Return the log softmax of logits (B, L) over the positions ``asked`` (B, L), 0 at the others; None = over all."""
    if asked is None:
        return wide(logits).log_softmax(-1)
    out = ~asked.bool()
    return wide(logits).masked_fill(out, -torch.inf).log_softmax(-1).masked_fill(out, 0.0)


def _count(like: Tensor, asked: Tensor | None) -> Tensor:
    return like.new_tensor(like.numel()) if asked is None else asked.sum()
