"""Every b-th layer of the teacher, ending at the last."""

from __future__ import annotations

from kdexp.inits.base import Init


class Spread(Init):
    """Student layer j starts as teacher layer round(j * N / k).

    For k dividing N that is the last layer of each block: (4, 8, 12) for 12 -> 3, the default of How to Distill your
    BERT (Wang et al., 2023, Table 1). For other k the paper says nothing; rounding half up keeps the last layer in.
    """

    def layers(self, student_layers: int, teacher_layers: int) -> list[int]:
        """Return k increasing layers, the last one N."""
        self.need(student_layers, teacher_layers)
        return [(2 * j * teacher_layers + student_layers) // (2 * student_layers) for j in range(1, student_layers + 1)]
