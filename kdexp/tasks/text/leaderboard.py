"""The files that GLUE's leaderboard takes: which name each has, and how it writes an answer (gluebenchmark.com)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GLUE = "nyu-mll/glue"
"""The data set whose configurations the forms below belong to."""


@dataclass(frozen=True)
class Form:
    """One file.

    Attributes:
        files: split -> name of the file.
        names: classes are written by name, not by id.
        scores: lowest and highest score that is written; None = classes.
    """

    files: dict[str, str]
    names: bool = False
    scores: tuple[float, float] | None = None


FORMS = {
    "cola": Form({"test": "CoLA.tsv"}),
    "sst2": Form({"test": "SST-2.tsv"}),
    "mrpc": Form({"test": "MRPC.tsv"}),
    "qqp": Form({"test": "QQP.tsv"}),
    "stsb": Form({"test": "STS-B.tsv"}, scores=(0.0, 5.0)),
    "mnli": Form({"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv", "ax": "AX.tsv"}, names=True),
    "qnli": Form({"test": "QNLI.tsv"}, names=True),
    "rte": Form({"test": "RTE.tsv"}, names=True),
    "wnli": Form({"test": "WNLI.tsv"}),
}
"""By configuration of :data:`GLUE`."""


def sheet(answers: Sequence[str]) -> str:
    """Return the text of a file: a header, and an answer a row, counted from 0."""
    rows = (f"{number}\t{answer}" for number, answer in enumerate(answers))
    return "\n".join(["index\tprediction", *rows]) + "\n"


def written(logits: np.ndarray, names: Sequence[str], form: Form | None) -> list[str]:
    """Return answers as a file has them: names or ids of classes, or scores.

    Args:
        logits: (n, C), C = 1 for scores.
        names: the classes in the order of their ids; [] for scores.
        form: of the leaderboard; None = classes by name, scores as they are.
    """
    if not names:
        low, high = form.scores if form is not None and form.scores else (-np.inf, np.inf)
        return [f"{score:.3f}" for score in np.clip(np.asarray(logits, np.float64).reshape(-1), low, high)]
    chosen = np.asarray(logits).argmax(axis=1)
    return [names[i] if form is None or form.names else str(i) for i in chosen.tolist()]
