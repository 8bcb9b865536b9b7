"""Do a trained classifier's outputs mean what the data's labels mean? By their names, and by what it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kdexp.tasks.base import Task


def check_labels(
    id2label: Mapping[int | str, str], task: Task, who: str = "teacher", teaches: bool = True
) -> list[str]:
    """Compare the label names of a model that is a classifier already with those of a task.

    Names are compared without case and punctuation; a name may be the beginning of the other (``neg``, ``negative``).
    Placeholders (``LABEL_0``, ``0``) say nothing and pass: the floor on the teacher's score is what remains then.

    Args:
        id2label: of the model's config.
        task: the task.
        who: whose model it is, for the message.
        teaches: it is a teacher; False: it only answers.

    Returns:
        Sentences for people; [] = nothing speaks against it.
    """
    names = [str(name) for _, name in sorted(id2label.items(), key=lambda item: int(item[0]))]
    head = task.head
    mend = "fine-tune it on this task (teacher.finetune=true)" if teaches else "name the task that it knows (task=...)"
    harm = "It would teach wrong classes" if teaches else "Its answers would be misnamed"
    if len(names) != head.width:
        return [
            f"the {who} has {len(names)} outputs {names}, task={task.name} needs {head.width} "
            f"{head.label_names or '(a score)'}: {mend} or take another."
        ]
    if not head.label_names or all(re.fullmatch(r"(label_?)?\d+", name, re.IGNORECASE) for name in names):
        return []
    matched = [_match(name, head.label_names) for name in names]
    if matched == list(range(len(names))):
        return []
    both = f"the {who}'s outputs are {names}, the labels of task={task.name} are {head.label_names}"
    if sorted(m for m in matched if m is not None) == list(range(len(names))):
        return [
            f"label order differs: {both}. {harm}: {mend}, or reorder its head and id2label; change task.label_names "
            "only if the data's ids really mean that."
        ]
    return [
        f"label names differ: {both}, and the order cannot be told from them: {mend}, or rename the labels in its "
        "config.json (id2label) as the task has them."
    ]


BETTER = 0.1
"""Agreement (mean over classes) that another order must gain to be taken for the right one."""
SURE = 4.0
"""Standard deviations of chance by which the number of right answers must gain too."""


def check_answers(answers: np.ndarray, labels: np.ndarray, names: list[str], who: str = "teacher") -> list[str]:
    """Compare what a model that is a classifier already answers with the labels of some examples.

    It is refused if another order of its outputs fits clearly better: agreement, averaged over classes (so that a model
    of one answer gains nothing), grows by :data:`BETTER`, and right answers by more than chance gives.

    Args:
        answers: (n,) the output that each example gets.
        labels: (n,) class ids.
        names: the classes in the order of their ids.
        who: whose answers they are, for the message.

    Returns:
        Sentences for people; [] = no other order fits better.
    """
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((len(names), len(names)), dtype=np.int64)  # output, class
    np.add.at(counts, (answers, labels), 1)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    present = max(1, int((counts.sum(axis=0) > 0).sum()))
    _, order = linear_sum_assignment(-shares)  # output -> class
    straight, other = np.diag(counts).sum(), counts[np.arange(len(names)), order].sum()
    moved = order != np.arange(len(names))
    differing = np.diag(counts)[moved].sum() + counts[np.arange(len(names)), order][moved].sum()
    gain = (shares[np.arange(len(names)), order].sum() - np.diag(shares).sum()) / present
    if gain < BETTER or other - straight <= SURE * np.sqrt(differing):
        return []
    fitting = [names[i] for i in order]
    return [
        f"label order differs: of {len(labels)} training texts the {who} answers {straight / len(labels):.0%} as "
        f"labelled if its outputs are {names}, but {other / len(labels):.0%} if they are {fitting}. It would teach "
        f"wrong classes: reorder the rows of its head and id2label; or say task.label_names={fitting} if the data give "
        "names; or fine-tune it on this task (teacher.finetune=true)."
    ]


def agreement(answers: np.ndarray, labels: np.ndarray, names: list[str]) -> str:
    """Return how many of each class's examples are answered as labelled, for the log."""
    classes = [(name, answers[labels == i] == i) for i, name in enumerate(names)]
    return ", ".join(f"{name!r} {right.mean():.0%}" for name, right in classes if len(right))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _match(name: str, known: list[str]) -> int | None:
    """Position of the one label that ``name`` means, or None."""
    plain, others = _plain(name), [_plain(k) for k in known]
    if plain in others:
        return others.index(plain)
    close = [i for i, o in enumerate(others) if plain and o and (o.startswith(plain) or plain.startswith(o))]
    return close[0] if len(close) == 1 else None
