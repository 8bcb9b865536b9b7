"""The last k layers of the teacher (top)."""

from __future__ import annotations

from kdexp.inits.base import Init


class Last(Init):
    """Student layer j starts as teacher layer N - k + j."""

    def layers(self, student_layers: int, teacher_layers: int) -> list[int]:
        """Return N-k+1..N."""
        self.need(student_layers, teacher_layers)
        return list(range(teacher_layers - student_layers + 1, teacher_layers + 1))
