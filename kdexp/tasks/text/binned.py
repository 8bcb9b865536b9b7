"""A score as a distribution over whole-numbered bins, so that what is known of positions and bins can be distilled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from kdexp.common.registry import build
from kdexp.tasks.text.table import TextTask

if TYPE_CHECKING:
    from kdexp.heads.base import Head

BINS = "kdexp.heads.bins.Bins"


@dataclass
class BinnedTextTask(TextTask):
    """A regression whose model answers with bins 0, 1, ..., n-1; its score is the expected bin.

    Attributes:
        bins: n; labels must lie between 0 and n-1.
    """

    bins: Annotated[int, Field(ge=2, le=1000)] = 6

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: naming what does not fit.
        """
        if self.kind != "regression":
            raise ValueError(f"task.kind={self.kind}: bins stand for a score; use kind=regression")
        super().__post_init__()

    @property
    def head(self) -> Head:
        """Bins."""
        return build({"_target_": BINS, "bins": self.bins})
