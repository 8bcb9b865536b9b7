"""What a phase asks of its teacher, and whether the answers can be stored at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from kdexp.heads.base import Head
from kdexp.models import capture
from kdexp.objectives.base import READS, Objective
from kdexp.tasks.base import Dataset

PRETRAINED = "pretrained"
"""Stands for the weights of a teacher that is not fine-tuned; which ones, its origin says."""


@dataclass(frozen=True)
class Question:
    """What a phase asks of a frozen teacher.

    Attributes:
        stage: the phase's name, for people.
        identity: what decides the answers but for examples and arithmetic; None = it is not known.
        load: loads the teacher, on the device.
        head: what it answers.
        reads: features beside the head's outputs, with the positions that somebody reads of each.
        outputs: somebody reads the head's outputs.
        data: the split that is trained on; None = not the task's own.
        rows: (m,) the examples of it that are.
        quiet: its dropout is off.
    """

    stage: str
    identity: Mapping[str, Any] | None
    load: Callable[[], nn.Module]
    head: Head
    reads: Mapping[str, str]
    outputs: bool
    data: Dataset | None
    rows: np.ndarray
    quiet: bool

    @property
    def names(self) -> list[str]:
        """Everything that is asked for."""
        return sorted([*self.reads, *(self.head.names if self.outputs else ())])


def reads(objectives: Iterable[Objective]) -> dict[str, str]:
    """Return the teacher's features that objectives need and, of each, the most positions that one of them reads."""
    most: dict[str, str] = {}
    for objective in objectives:
        for name in capture.wanted([objective], 1):
            here = objective.reads()
            here = "real" if here == "first" and not name.startswith("hidden.") else here
            most[name] = max(most.get(name, here), here, key=READS.index)
    return most


def obstacle(question: Question, asked: str) -> str | None:
    """Say why a teacher must be run on every batch, whatever room there is; None if it need not.

    Args:
        asked: ``runtime.teacher_cache``.
    """
    data, identity = question.data, question.identity
    padding = ", ".join(sorted(name for name, positions in question.reads.items() if positions == "all"))
    by_example = bool({"examples", "positions", "vectors"} & question.head.abilities)
    untrained = identity is not None and identity["weights"] == PRETRAINED
    unknown = "nobody knows what decides its features (a model of the hub needs teacher.revision=<commit>)"
    reasons = [
        (asked == "off", "runtime.teacher_cache=off"),
        (not question.quiet, "its dropout is on (teacher.evaluation_mode=false)"),
        (data is None, "the examples are not the task's own"),
        (data is not None and not data.fixed, "the examples differ from batch to batch"),
        (bool(padding), f"an objective may read {padding} at padding"),
        (question.outputs and question.head.reads_padding, "its answers are read at padding"),
        (question.outputs and not by_example, f"the head {question.head.name} does not answer by example"),
        (question.outputs and untrained, "its head is not trained"),
        (identity is None and bool(question.names), unknown),
    ]
    return next((reason for applies, reason in reasons if applies), None)
