"""Random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdexp.inits.base import Init


@dataclass(frozen=True)
class Random(Init):
    """Nothing is copied: all weights follow the architecture's own rule, drawn from the run's seed."""

    copies: ClassVar[bool] = False

    source: str = "finetuned"
    pooler: bool = False

    def layers(self, student_layers: int, teacher_layers: int) -> None:
        """Return None: no layer of the teacher is used."""
        return
