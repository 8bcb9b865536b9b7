"""Sigmoid KD: every class is a yes or no of its own (MLD of L2D, ICCV 2023, arXiv 2308.06453; official code)."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from kdexp.config.schema import Temperature
from kdexp.heads.classification import reduced
from kdexp.objectives.common import choice, wide
from kdexp.objectives.divergence import Divergence

FORMS = ("kl", "bce")


def multilabel_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    times_T2: bool = True,
    reduction: str = "batchmean",
    form: str = "kl",
) -> Tensor:
    """Sum over classes of the binary KL(sigmoid(teacher/T) || sigmoid(student/T)), logits (B, C).

    By log-sigmoid: the released clamp at 1 - 1e-8 is 1 in float32, and a saturated student would cost infinity.

    Args:
        form: ``bce`` adds the teacher's entropy (same gradient).
    """
    choice("form", form, FORMS)
    s, t = wide(student_logits) / temperature, wide(teacher_logits.detach()) / temperature
    yes, no = F.logsigmoid(t), F.logsigmoid(-t)
    values = -yes.exp() * F.logsigmoid(s) - no.exp() * F.logsigmoid(-s)
    if form == "kl":
        values = values + yes.exp() * yes + no.exp() * no
    loss = reduced(values, reduction)
    return loss * temperature**2 if times_T2 else loss


class MultilabelKL(Divergence):
    """T^2 * sum over classes of the binary KL between the teacher's and the student's sigmoid.

    For answers of which several may be true (``task=multilabel``); on one label an example it treats the classes apart.
    Reduction: sum /
    sentences by default. Mask: none needed. Power of T: 2 (T itself is ours; the source has none). Units: sentences.
    Source: official code, weight 10. Degenerate: one class is the softmax KL of [0, z]. Settings as in
    :class:`Divergence`, and

    Args:
        form: ``kl``, or ``bce`` with the teacher's entropy.
    """

    asks: ClassVar[tuple[str, ...]] = ("decisions",)

    def __init__(
        self,
        form: str = "kl",
        temperature: Temperature = 1.0,
        reduction: str = "batchmean",
        times_T2: bool = True,
    ) -> None:
        super().__init__(temperature, reduction, times_T2)
        choice("multilabel_kl.form", form, FORMS)
        self.form = form

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """:func:`multilabel_kl`."""
        return multilabel_kl(student, teacher, self.temperature, self.times_T2, self.reduction, self.form)
