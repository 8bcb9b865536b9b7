"""Vectors near the teacher's: what a student answers, compared with what the teacher answers (arXiv 2301.12005)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice, exact, wide
from kdexp.objectives.embed_distill import METRICS, embed_distill

COMPONENTS = "components.safetensors"
"""File of a teacher's stage: principal components of its vectors, a row each, the largest first."""


class Embedding(Objective):
    """Distance of the student's vectors from the teacher's, as :func:`~kdexp.objectives.embed_distill.embed_distill`.

    Where the student's are narrower (``task.projection=pca``), the teacher's are cut to the first principal components
    of its vectors of the training texts, without centring, and brought to length 1 again where the task asks for that.
    Reduction: mean over texts (``mse``: and width). Units: texts. Source: as of ``embed_distill``; the cut is that of
    sentence-transformers' dimensionality reduction. Degenerate: as of ``embed_distill``.

    Args:
        metric: ``cosine``, ``l2`` or ``mse``.
    """

    asks: ClassVar[tuple[str, ...]] = ("vectors",)

    def __init__(self, metric: str = "cosine") -> None:
        super().__init__()
        choice("embedding.metric", metric, METRICS)
        self.metric = metric
        self.components: Tensor | None
        self.register_buffer("components", None, persistent=False)

    def inherit(self, folders: dict[str, Path]) -> None:
        """Take the principal components that the teacher's stage has found, if it was asked for them."""
        from safetensors.torch import load_file

        path = folders["teacher"] / COMPONENTS if "teacher" in folders else None
        if path is not None and path.is_file():
            self.components = load_file(path)["components"]

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the mean distance."""
        assert teacher is not None
        ours, theirs = wide(student["embedding"]), wide(teacher["embedding"].detach())
        with exact(ours):
            if self.components is not None:
                theirs = theirs @ self.components[: ours.shape[-1]].T
                theirs = nn.functional.normalize(theirs, dim=-1) if getattr(self.head, "normalize", False) else theirs
            return embed_distill(ours, theirs, self.metric)
