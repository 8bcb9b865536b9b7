"""The first k layers of the teacher (bottom)."""

from __future__ import annotations

from kdexp.inits.base import Init


class First(Init):
    """Student layer j starts as teacher layer j.

    With ``source=pretrained`` and ``pooler=true`` this is PKD's start (Sun et al., 2019, released code); with
    ``source=finetuned`` it is (1, 2, 3) of How to Distill your BERT (Wang et al., 2023, Table 3).
    """

    def layers(self, student_layers: int, teacher_layers: int) -> list[int]:
        """Return 1..k."""
        self.need(student_layers, teacher_layers)
        return list(range(1, student_layers + 1))
