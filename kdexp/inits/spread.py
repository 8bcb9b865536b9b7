"""The last layer of each block of the teacher."""

from __future__ import annotations

from kdexp.inits.base import Init
from kdexp.models.depths import end_of_block


class Spread(Init):
    """Student layer j starts as the last teacher layer of its block: :func:`kdexp.models.depths.end_of_block`.

    (4, 8, 12) for 12 -> 3, the default of How to Distill your BERT (Wang et al., 2023, Table 1).
    """

    def layers(self, student_layers: int, teacher_layers: int) -> list[int]:
        """Return k increasing layers, the last one N."""
        self.need(student_layers, teacher_layers)
        return [end_of_block(j, student_layers, teacher_layers) for j in range(1, student_layers + 1)]
