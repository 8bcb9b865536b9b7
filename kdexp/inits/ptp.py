"""PTP, pre-training with the teacher's predictions (Pea-KD, arXiv 2009.14822): labels, and the init.

A fine-tuned teacher's confidence and correctness on *training* examples make four artificial classes: 0 confidently
correct, 1 unconfidently correct, 2 confidently wrong, 3 unconfidently wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kdexp.config.schema import Count, Epochs, Part, Rate
from kdexp.inits.first import First

if TYPE_CHECKING:
    from torch import Tensor

SELECT = ("heldout_train", "fixed_epochs", "legacy_dev")


@dataclass(frozen=True)
class PTP(First):
    """The first k layers, then trained to tell the four classes apart; the encoder goes on, the 4-way head does not.

    Attributes:
        t1, t2: thresholds of confidence for correct and for wrong examples; None = the median of each on train.
        epochs, learning_rate, batch_size: of this stage; None = as the student's recipe.
        layout_epochs: its learning-rate schedule is laid out for so many epochs; None = for ``epochs``.
        select: ``heldout_train`` (best epoch on the held-out part of train), ``fixed_epochs`` (the last one) or
            ``legacy_dev`` (as released: best on the validation split, whose labels leak in).
    """

    method: ClassVar[str | None] = "ptp"
    asks: ClassVar[tuple[str, ...]] = ("classes", "examples")

    source: str = "pretrained"
    t1: Part | None = None
    t2: Part | None = None
    epochs: Epochs | None = None
    learning_rate: Rate | None = None
    batch_size: Count | None = None
    layout_epochs: Epochs | None = None
    select: str = "heldout_train"

    @property
    def needs_teacher(self) -> bool:
        """Always: its answers are the labels."""
        return True

    def problems(self) -> list[str]:
        """Say what is wrong with the settings themselves."""
        found = super().problems()
        if self.select not in SELECT:
            found.append(f"init.select={self.select} is unknown; choose one of {', '.join(SELECT)}.")
        if self.layout_epochs is not None and (self.epochs is None or self.layout_epochs < self.epochs):
            found.append(
                f"init.layout_epochs={self.layout_epochs} with init.epochs={self.epochs}: the schedule is laid out for "
                "at least as many epochs as are trained; give both."
            )
        if self.head:
            found.append("init.head=true: the 4-way head of PTP is thrown away, so there is none to copy; use false.")
        return found


def ptp_labels(confidence: Tensor, correct: Tensor, t1: float, t2: float) -> Tensor:
    """Classes (n,) int64 from the teacher's confidence (n,) and correctness (n,) (bool, or 0/1).

    Correct and confidence > t1 -> 0, else 1; wrong and confidence > t2 -> 2, else 3. Equality is unconfident.
    """
    import torch

    right = torch.where(confidence > t1, 0, 1)
    wrong = torch.where(confidence > t2, 2, 3)
    return torch.where(correct.bool(), right, wrong)


def ptp_confidence(teacher_logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Largest softmax probability at temperature 1 (n,) and whether its class is the label (n,), from logits (n, C)."""
    confidence, answer = teacher_logits.softmax(-1).max(-1)
    return confidence, answer == labels


def ptp_median_thresholds(confidence: Tensor, correct: Tensor) -> list[float]:
    """[t1, t2]: median confidence of the correct and of the wrong examples; the middle of an even count's two.

    Raises:
        ValueError: if there is no correct or no wrong example.
    """
    right = correct.bool()
    counts = int(right.sum()), int((~right).sum())
    if 0 in counts:
        raise ValueError(
            f"median thresholds need correct and wrong examples; the teacher has {counts[0]} correct and {counts[1]} "
            "wrong ones on train. Give t1 and t2 as numbers"
        )
    # torch.median takes the lower of two middle values; the rule is their mean.
    return [float(side.double().quantile(0.5)) for side in (confidence[right], confidence[~right])]
