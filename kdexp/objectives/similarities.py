"""Who of a batch resembles whom: scores between texts, where no distance between vectors is asked for."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.config.schema import Temperature
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import exact, wide
from kdexp.objectives.score_matching import score_matching


class Similarities(Objective):
    """:func:`~kdexp.objectives.score_matching.score_matching` of the vectors that student and teacher answer with.

    Every text of a batch is a query, and all of them are its candidates, itself included. Widths may differ. Reduction:
    sum / B. Units: none, it depends on the batch. Power of T: none. Source: third-party code (temperature .02), as of
    ``score_matching``. Degenerate: one text gives 0.

    Args:
        temperature: divides the cosines; choose it by the teacher's spread.
    """

    asks: ClassVar[tuple[str, ...]] = ("vectors",)
    batchwise = True

    def __init__(self, temperature: Temperature = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        ours, theirs = wide(student["embedding"]), wide(teacher["embedding"].detach())
        with exact(ours):
            return score_matching(ours, theirs, self.temperature)
