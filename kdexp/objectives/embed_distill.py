"""EmbedDistill: embeddings near the teacher's (Kim et al. 2023, arXiv 2301.12005; code of sentence-transformers)."""

from __future__ import annotations

from torch import Tensor, nn

from kdexp.objectives.base import Batch, Context
from kdexp.objectives.common import alive, choice, wide
from kdexp.objectives.pooled import Relation

METRICS = ("cosine", "l2", "mse")
PROJECTIONS = ("auto", "always", "never")


def embed_distill(
    student: Tensor,
    teacher: Tensor,
    metric: str = "cosine",
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Distance of vectors (B, D), the student's through x W^T + b if given.

    Args:
        metric: ``cosine`` = mean of 1 - cos (norms at least 1e-8); ``l2`` = mean Euclidean distance; ``mse`` = mean
            over B*D of squared differences.
    """
    choice("metric", metric, METRICS)
    s, t = wide(student), wide(teacher.detach())
    if weight is not None:
        s = nn.functional.linear(s, weight, bias)
    if metric == "mse":
        return (s - t).square().mean()
    if metric == "l2":
        return alive(s - t).square().sum(-1).sqrt().mean()
    s = alive(s)
    norms = [x.square().sum(-1).sqrt().clamp(min=1e-8) for x in (s, t)]
    return (1 - (s * t).sum(-1) / (norms[0] * norms[1])).mean()


class EmbedDistill(Relation):
    """Mean distance of pooled vectors, the student's mapped to the teacher's width.

    Reduction: mean over sentences (``mse``: and width). Mask: in the pooling. Power of T: none. Units: sentences.
    Source: official code of sentence-transformers (cosine by default; l2 is the paper's metric). Degenerate: a zero
    vector has cosine 0; equal vectors, and zero ones, get no gradient.

    Args:
        metric: ``cosine``, ``l2`` or ``mse``.
        projection: a linear map with bias, ``auto`` (only where widths differ), ``always`` or ``never``.
        pool, layer_reduce: as in :class:`Relation`.
    """

    batchwise = False

    def __init__(
        self,
        metric: str = "cosine",
        projection: str = "auto",
        pool: str = "mean",
        layer_reduce: str = "sum",
    ) -> None:
        super().__init__(pool, layer_reduce)
        choice("embed_distill.metric", metric, METRICS)
        choice("embed_distill.projection", projection, PROJECTIONS)
        self.metric, self.projection = metric, projection
        self.maps = nn.ModuleList()

    def setup(self, context: Context) -> None:
        super().setup(context)
        assert context.teacher is not None
        ours, theirs = context.student.hidden_size, context.teacher.hidden_size
        if self.projection == "never" and ours != theirs:
            raise ValueError(
                f"projection=never compares vectors as they are: the student's width is {ours}, the teacher's {theirs}"
                ". Take projection=auto, or a student as wide as the teacher"
            )
        if self.projection == "always" or ours != theirs:
            self.maps = nn.ModuleList(nn.Linear(ours, theirs) for _ in self.pairs)

    def relation(self, number: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`embed_distill`."""
        return embed_distill(self.maps[number](student) if len(self.maps) else student, teacher, self.metric)
