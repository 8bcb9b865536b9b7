"""One vector an example: what a text means, as a point."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from kdexp.heads.base import Head
from kdexp.heads.batch import Batch, Features, Predictions, Targets
from kdexp.heads.common import choice, wide
from kdexp.heads.similarities import COSINE, LABEL, SCORE, SIMILARITY

POOLS = ("mean", "cls")
PROJECTIONS = ("linear", "pca")


class Embedding(Head):
    """Vectors (B, D), as features called ``embedding``. No label says what one should be: a teacher does.

    Args:
        pool: ``mean`` of a text's real tokens, or ``cls``, its first one.
        normalize: give each vector length 1.
        projection: of a student of another width than its teacher: ``linear`` gives it a learned map to the teacher's
            width, with ``pca`` it answers as wide as it is.
    """

    name: ClassVar[str] = "embedding"
    auto_class: ClassVar[str] = "AutoEmbedder"
    abilities: ClassVar[frozenset[str]] = frozenset({"vectors"})
    unused: ClassVar[frozenset[str]] = frozenset({"temperature", "form", "times_T2"})
    names: ClassVar[tuple[str, ...]] = ("embedding",)
    method: ClassVar[str] = "embeddings"

    def __init__(self, pool: str = "mean", normalize: bool = True, projection: str = "linear") -> None:
        choice("pool", pool, POOLS)
        choice("projection", projection, PROJECTIONS)
        self.pool, self.normalize, self.projection = pool, normalize, projection

    def model_config(self) -> dict[str, Any]:
        """Return how hidden states become a vector."""
        return {"embedding_pool": self.pool, "embedding_normalize": self.normalize}

    def of_teacher(self, config: Any) -> dict[str, Any]:
        """Return the width that a student's vectors are mapped to: its teacher's, or none."""
        width = getattr(config, "embedding_out", None) or config.hidden_size
        return {"embedding_out": int(width) if self.projection == "linear" else None}

    def loss(self, outputs: Features, batch: Batch, reduction: str = "mean") -> Tensor:
        """See :meth:`Head.loss`: there is none.

        Raises:
            ValueError: always.
        """
        raise ValueError("vectors have no labels: use objective=embeddings, which takes the teacher's")

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
        """Return 1 - cosine with the teacher's vector (``sum``, or the mean); the other arguments are not used."""
        gaps = 1 - F.cosine_similarity(wide(student["embedding"]), wide(teacher["embedding"].detach()))
        return gaps.sum() if reduction == "sum" else gaps.mean()

    def trivial(self, train: Targets, like: Targets) -> Predictions:
        """Return what zero vectors give: every text is as near to every other, and to the teacher's vector."""
        count = len(next(iter(like.values())))
        name, width = (SCORE, 1) if LABEL in like else (SIMILARITY, 2)
        return {name: np.zeros((count, width), np.float32), COSINE: np.zeros(count, np.float32)}
