"""The interface of an initialisation: which teacher layers a student's layers are copies of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kdexp.common.registry import kind


@kind
@dataclass(frozen=True)
class Init:
    """Where the student's weights come from.

    Attributes:
        name: the name in tables.
        source: ``finetuned`` (the teacher after fine-tuning on the task) or ``pretrained`` (before it).
        pooler: copy the pooler, where the architecture has one.
        head: copy the classification head.
    """

    copies: ClassVar[bool] = True
    narrows: ClassVar[bool] = False
    """It cuts the teacher to the student's width (:class:`kdexp.inits.narrow.Narrow`); others need equal widths."""
    method: ClassVar[str | None] = None
    """Name of the method that makes a stage whose encoder the student starts from (``Method.init_stage``), or None."""
    elsewhere: ClassVar[frozenset[str]] = frozenset()
    """Settings that are in no key of the run's own stages: a stage of its own, or a content, stands there for them."""
    asks: ClassVar[tuple[str, ...]] = ()
    """What it asks of the task's head, keys of :data:`kdexp.heads.base.ABILITIES`; () = any head will do."""

    name: str = ""
    source: str = "finetuned"
    pooler: bool = True
    head: bool = False

    def layers(self, student_layers: int, teacher_layers: int) -> list[int] | None:
        """Return the 1-based teacher layer for each student layer, bottom to top; None if nothing is copied.

        Raises:
            ValueError: the teacher has too few layers for this rule.
        """
        raise NotImplementedError

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher must have been fine-tuned on the task before the student can start."""
        return self.copies and self.source == "finetuned"

    def problems(self) -> list[str]:
        """Say what is wrong with the settings themselves."""
        if self.source not in ("finetuned", "pretrained"):
            return [f"init.source={self.source} is unknown; choose finetuned or pretrained."]
        if self.copies and self.head and self.source == "pretrained":
            return ["init.head=true with init.source=pretrained: a pretrained teacher has no head for this task yet."]
        return []

    def need(self, student_layers: int, teacher_layers: int) -> None:
        """Refuse a student that is deeper than its teacher."""
        if student_layers > teacher_layers:
            raise ValueError(
                f"init={self.name} with student.num_layers={student_layers} needs a teacher of at least "
                f"{student_layers} layers (it has {teacher_layers}): lower student.num_layers or use init=random."
            )
