"""Whose tokenizer cuts a student's texts: its teacher's, or, for a student of its own, the one it came with.

Two tokenizers make other tokens of a text, but of the same example. So each model reads its own, and what the teacher
says is joined by example id: answers, [CLS], pooled vectors. What is compared token by token needs tokens that are the
same on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdexp.common.registry import target
from kdexp.config.schema import Config, Teacher
from kdexp.heads.batch import MASK, Batch, Features
from kdexp.models import source
from kdexp.tasks.base import Dataset
from kdexp.tasks.text import tokenizer
from kdexp.tasks.text.tokenizer import Compared
from kdexp.train import teachers

STATED = (".json", ".txt", ".model", ".jinja")
"""Endings of the files that a tokenizer is made of."""


@dataclass(frozen=True)
class Reading:
    """How a run's texts are read.

    Attributes:
        student: the model whose tokenizer makes the student's inputs.
        joined: it is another one than the teacher's: features are joined by example id.
        alike: token n of a text is the same token to both.
    """

    student: Teacher
    joined: bool = False
    alike: bool = True


def of(config: Config) -> Reading:
    """Return how a run's texts are read; the files of both models are here.

    Where both tokenizers make the same inputs, the teacher's is taken for both; also where examples cannot be joined,
    because texts are cut into them by tokens (windows, packed sequences).
    """
    own = source.own(config)
    if own is None or not target(config.task).by_example:
        return Reading(config.teacher)
    both = compared(config.teacher, own)
    assert both is not None  # both were fetched
    if both.same:
        return Reading(config.teacher)
    return Reading(own, joined=True, alike=both.alike)


def compared(teacher: Teacher, student: Teacher) -> Compared | None:
    """Return how two models' tokenizers differ; None where one of them is not here.

    Raises:
        ValueError: one of them cannot be used.
    """
    folders = [Path(source.location(model)[0]) for model in (teacher, student)]
    if not all((folder / "config.json").is_file() for folder in folders):
        return None
    stamps = [tuple(sorted((p.name, p.stat().st_mtime_ns) for p in f.glob("*") if p.suffix in STATED)) for f in folders]
    return tokenizer.compared(*map(str, folders), stamp=tuple(stamps))


class Joined:
    """A teacher that is asked about the same examples in its own tokens.

    Args:
        teacher: what answers its own batches, or looks features up by them.
        data: the training split as the teacher reads it; ids are those of the student's.
        alike: both have the same tokens, so that features stay in step with the student's, padding included.
    """

    def __init__(self, teacher: teachers.Teacher, data: Dataset, alike: bool) -> None:
        self.teacher, self.data, self.alike = teacher, data, alike

    def __call__(self, batch: Batch) -> Features:
        """Return the teacher's features for a batch of the student's, and which of its positions are real."""
        width = batch.mask.shape[1] if self.alike and batch.mask is not None else None
        read = self.data.collate(batch.index.cpu().numpy(), width=width).to(batch.device)
        return self.teacher(read) | ({} if self.alike or read.mask is None else {MASK: read.mask})


def asked(teacher: teachers.Teacher | None) -> teachers.Teacher | None:
    """Return who answers: what a :class:`Joined` asks, or a teacher as it is."""
    return teacher.teacher if isinstance(teacher, Joined) else teacher
