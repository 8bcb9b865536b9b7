"""Do a trained classifier's outputs mean what the data's labels mean?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdexp.tasks.base import Task


def check_labels(id2label: Mapping[int | str, str], task: Task, who: str = "teacher") -> list[str]:
    """Compare the label names of a model that is a classifier already with those of a task.

    Names are compared without case and punctuation; a name may be the beginning of the other (``neg``, ``negative``).
    Placeholders (``LABEL_0``, ``0``) say nothing and pass: the floor on the teacher's score is what remains then.

    Args:
        id2label: of the model's config.
        task: the task.
        who: whose model it is, for the message.

    Returns:
        Sentences for people; [] = nothing speaks against it.
    """
    names = [str(name) for _, name in sorted(id2label.items(), key=lambda item: int(item[0]))]
    head = task.head
    if len(names) != head.width:
        return [
            f"the {who} has {len(names)} outputs {names}, task={task.name} needs {head.width} "
            f"{head.label_names or '(a score)'}: fine-tune it on this task (teacher.finetune=true) "
            "or take another."
        ]
    if not head.label_names or all(re.fullmatch(r"(label_?)?\d+", name, re.IGNORECASE) for name in names):
        return []
    matched = [_match(name, head.label_names) for name in names]
    if matched == list(range(len(names))):
        return []
    both = f"the {who}'s outputs are {names}, the labels of task={task.name} are {head.label_names}"
    if sorted(m for m in matched if m is not None) == list(range(len(names))):
        return [
            f"label order differs: {both}. It would teach wrong classes: fine-tune it on this task "
            "(teacher.finetune=true), or reorder its head and id2label; change task.label_names only if the data's ids "
            "really mean that."
        ]
    return [
        f"label names differ: {both}, and the order cannot be told from them. Fine-tune it on this task "
        "(teacher.finetune=true), or rename the labels in its config.json (id2label) as the task has them."
    ]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _match(name: str, known: list[str]) -> int | None:
    """Position of the one label that ``name`` means, or None."""
    plain, others = _plain(name), [_plain(k) for k in known]
    if plain in others:
        return others.index(plain)
    close = [i for i, o in enumerate(others) if plain and o and (o.startswith(plain) or plain.startswith(o))]
    return close[0] if len(close) == 1 else None
