"""An explicit list of teacher layers."""

from __future__ import annotations

from dataclasses import dataclass, field

from kdexp.config.schema import Depth
from kdexp.inits.base import Init


@dataclass(frozen=True)
class Layers(Init):
    """Student layer j starts as the j-th teacher layer of the list, such as (1, 8, 12) of How to Distill your BERT.

    Attributes:
        chosen: 1-based teacher layers, bottom to top; repeats are allowed.
    """

    chosen: list[Depth] = field(default_factory=list)

    def layers(self, student_layers: int, teacher_layers: int) -> list[int]:
        """Return the list itself, checked."""
        chosen = list(self.chosen)
        if len(chosen) != student_layers:
            raise ValueError(
                f"init.chosen={chosen} names {len(chosen)} layers, but student.num_layers={student_layers}: "
                "give one teacher layer for each student layer."
            )
        bad = [layer for layer in chosen if not 1 <= layer <= teacher_layers]
        if bad:
            raise ValueError(f"init.chosen={chosen}: {bad} are not layers of this teacher (1..{teacher_layers}).")
        return chosen
