"""IKD counterpart: soft labels on a clean and a noisy view of a text (after arXiv 2209.09841; code for images)."""

from __future__ import annotations

from torch import Tensor

from kdexp.config.schema import Part, Temperature, Weight
from kdexp.heads.batch import Batch, Features
from kdexp.objectives.kd import KD


class IKD(KD):
    """kd(clean view) + lam * kd(noisy view); batches hold all clean views, then all noisy ones (``methods/ikd.py``).

    **A counterpart of inconsistent distillation**: dropped or masked tokens take the place of image noise. Reduction:
    each half as in :class:`KD`. Mask: none needed. Power of T: as in :class:`KD`. Units: none, halves belong
    together. Source: official code, in which teacher and student both see the perturbed image; that the teacher may
    see the clean text is ours. Degenerate: without noise it is (1 + lam) times kd. Settings as in :class:`KD`, and

    Args:
        lam: weight of the noisy half.
    """

    batchwise = True

    def __init__(
        self,
        lam: Weight = 1.0,
        alpha: Part = 0.5,
        temperature: Temperature = 2.0,
        reduction: str = "batchmean",
        form: str = "kl",
        times_T2: bool = True,
    ) -> None:
        super().__init__(alpha, temperature, reduction, form, times_T2)
        self.lam = lam

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        """Return the weighted loss of both halves."""
        assert teacher is not None
        half = len(batch) // 2
        clean, noisy = (
            super(IKD, self).forward(
                {name: x[rows] for name, x in student.items()},
                {name: x[rows] for name, x in teacher.items()},
                batch.part(rows),
            )
            for rows in (slice(0, half), slice(half, None))
        )
        return clean + self.lam * noisy
