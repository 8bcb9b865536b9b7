"""New rows with a model's answers beside them, from any form: one line a row, in its order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, softmax

from kdexp.delivery import form as forms
from kdexp.delivery.subject import Subject, answers
from kdexp.heads.base import Head
from kdexp.heads.batch import Predictions
from kdexp.run import predict
from kdexp.tasks.text import files

DECIDED = 0.5
"""Probability from which a label of several is taken as given."""


def answered(
    subject: Subject,
    form: str,
    file: Path,
    threads: int,
    max_length: int | None,
    show: Callable[[int, int, int], None],
) -> pd.DataFrame:
    """Return a file's rows, all their columns, with ``prediction`` and what it rests on.

    Args:
        subject: the model; its data are not read.
        form: in which it is there.
        file: the rows, as the task reads them.
        threads: the form may use.
        max_length: tokens after which an input is cut; None = as the model was trained.
        show: told the batches that are done, how many there are, and the rows of the last one.

    Raises:
        ValueError: the rows cannot be read, or have a column of a name that is needed, or the task's answers are none
            that a table holds.
    """
    task = subject.task
    data = task.unseen(predict.context(replace(subject.asked, max_length=max_length)), "data", file)
    runner = forms.form(form).load(subject.folder, task.head, threads)
    got, _ = answers(runner, data, task, show)
    table = pd.DataFrame(files.read(file, files.header(file)).columns)
    columns = _columns(task.head, got)
    taken = [name for name in columns if name in table]
    if taken:
        raise ValueError(f"{file} has columns {', '.join(taken)} already: rename them, or answers would replace them")
    return table.assign(**columns)


def _columns(head: Head, got: Predictions) -> dict[str, object]:
    """Return the new columns by name, each with an entry a row."""
    names = head.label_names
    if "examples" not in head.abilities:
        raise ValueError(
            f"answers of the head {head.name} are no columns of a table: give out= another ending, and they are "
            "written as the task's leaderboard takes them"
        )
    logits = np.asarray(got["logits"], np.float64)
    if not np.isfinite(logits).all():
        raise ValueError(f"{(~np.isfinite(logits)).any(axis=-1).sum()} rows have answers that are not finite")
    if not names:
        return {"prediction": logits.reshape(len(logits), -1)[:, 0]}
    one = "classes" in head.abilities or "decisions" not in head.abilities
    shares = softmax(logits, axis=1) if one else expit(logits)
    said: list[object] = [names[i] for i in shares.argmax(1)]
    if not one:
        said = [";".join(name for name, p in zip(names, row, strict=True) if p >= DECIDED) for row in shares]
    return {"prediction": said, **{f"p({name})": shares[:, i] for i, name in enumerate(names)}}


def write(table: pd.DataFrame, path: Path, ending: str) -> None:
    """Write a table to a file, in the format of an ending."""
    if ending == ".csv":
        table.to_csv(path, index=False)
    elif ending == ".jsonl":
        table.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        table.to_parquet(path, index=False)
