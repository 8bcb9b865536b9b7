"""Who of a batch resembles whom: scores between texts, where no distance between vectors is asked for."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from kdexp.config.schema import Temperature
from kdexp.objectives.base import Batch, Features, Objective
from kdexp.objectives.common import choice, exact, idle, unit, wide
from kdexp.objectives.margin_mse import margin_mse
from kdexp.objectives.score_matching import score_matching

FORMS = ("softmax", "margin")
TEMPERATURE = 0.05


def similarity_margins(student: Tensor, teacher: Tensor) -> Tensor:
    """:func:`~kdexp.objectives.margin_mse.margin_mse` of cosines between the vectors (B, D) of a batch.

    Each text is a query, the others are its candidates, and the positive is the one that the teacher finds most alike.
    Below three texts there is no margin: 0.
    """
    ours, theirs = (_others(unit(wide(x)) @ unit(wide(x)).T) for x in (student, teacher.detach()))
    if len(student) < 3:
        return ours.sum() * 0.0
    order = theirs.argsort(dim=1, descending=True, stable=True)
    return margin_mse(ours.gather(1, order), theirs.gather(1, order))


def _others(scores_BB: Tensor) -> Tensor:
    """Return a square matrix without its diagonal, (B, B - 1)."""
    size = len(scores_BB)
    return scores_BB.flatten()[1:].view(size - 1, size + 1)[:, :-1].reshape(size, size - 1)


class Similarities(Objective):
    """How alike the texts of a batch are by the student's vectors, and by the teacher's. Widths may differ.

    ``softmax``: :func:`~kdexp.objectives.score_matching.score_matching`, sum / B; every text is a candidate of every
    query, itself too. ``margin``: :func:`similarity_margins`, mean over queries and negatives; a counterpart of margin
    MSE, whose candidates come with the data. Units: none, both depend on the batch. Power of T: none. Source:
    third-party code (temperature .02), and ours. Degenerate: one text gives 0, two have no margin.

    Args:
        form: ``softmax`` or ``margin``.
        temperature: divides the cosines of the softmax; choose it by the teacher's spread.
    """

    asks: ClassVar[tuple[str, ...]] = ("vectors",)
    batchwise = True

    def __init__(self, form: str = "softmax", temperature: Temperature = TEMPERATURE) -> None:
        super().__init__()
        choice("similarities.form", form, FORMS)
        if form == "margin":
            idle("similarities.form=margin", {"temperature": (temperature, TEMPERATURE)})
        self.form, self.temperature = form, temperature

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the loss of the batch."""
        assert teacher is not None
        ours, theirs = wide(student["embedding"]), wide(teacher["embedding"].detach())
        with exact(ours):
            if self.form == "margin":
                return similarity_margins(ours, theirs)
            return score_matching(ours, theirs, self.temperature)
