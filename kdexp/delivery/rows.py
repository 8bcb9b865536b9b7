"""New rows with a model's answers beside them, from any form: one line a row, in its order."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from scipy.special import expit, softmax

from kdexp.delivery import form as forms
from kdexp.delivery.subject import Subject, answers
from kdexp.heads.base import Head
from kdexp.heads.batch import Predictions
from kdexp.run import predict
from kdexp.tasks.text import files

DECIDED = 0.5
"""Probability from which a label of several is taken as given."""


def read(file: Path, head: Head) -> pd.DataFrame:
    """Return a file's rows, all their columns, each value as it stands there (nothing is made a float for a gap).

    Args:
        file: the rows.
        head: answers them.

    Raises:
        ValueError: the file cannot be read, or has a column of a name that is needed; or a table holds no such answers.
    """
    if "examples" not in head.abilities:
        raise ValueError(
            f"answers of the head {head.name} are no columns of a table: give out= another ending, and they are "
            "written as the task's leaderboard takes them"
        )
    columns = files.read(file, None).columns
    taken = [name for name in ("prediction", *map(_share, head.label_names)) if name in columns]
    if taken:
        raise ValueError(f"{file} has columns {', '.join(taken)} already: rename them, or answers would replace them")
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def answered(
    subject: Subject,
    form: str,
    file: Path,
    threads: int,
    max_length: int | None,
    show: Callable[[int, int, int], None],
) -> tuple[dict[str, Any], int]:
    """Return what a model says of a file's rows, and how many of them were cut.

    Args:
        subject: the model; its data are not read.
        form: in which it is there.
        file: the rows, as the task reads them.
        threads: the form may use.
        max_length: tokens after which an input is cut; None = as the model was trained.
        show: told the batches that are done, how many there are, and the rows of the last one.

    Returns:
        New columns by name, ``prediction`` and what it rests on, an entry a row in the file's order; the number.

    Raises:
        ValueError: the rows cannot be read as the task reads them, or answers are not finite.
    """
    task = subject.task
    data = task.unseen(predict.context(replace(subject.asked, max_length=max_length)), "data", file)
    runner = forms.form(form).load(subject.folder, task.head, threads)
    got, _ = answers(runner, data, task, show)
    return _columns(task.head, got), int(data.facts.get("truncated") or 0)


def _share(name: str) -> str:
    return f"p({name})"


def _columns(head: Head, got: Predictions) -> dict[str, Any]:
    """Return the new columns by name, each with an entry a row."""
    names = head.label_names
    logits = np.asarray(got["logits"], np.float64)
    if not np.isfinite(logits).all():
        raise ValueError(f"{(~np.isfinite(logits)).any(axis=-1).sum()} rows have answers that are not finite")
    if not names:
        return {"prediction": logits.reshape(len(logits), -1)[:, 0]}
    one = "classes" in head.abilities or "decisions" not in head.abilities
    shares = softmax(logits, axis=1) if one else expit(logits)
    said: list[Any] = [names[i] for i in shares.argmax(1)]
    if not one:
        said = [";".join(name for name, p in zip(names, row, strict=True) if p >= DECIDED) for row in shares]
    return {"prediction": said, **{_share(name): shares[:, i] for i, name in enumerate(names)}}


def write(table: pd.DataFrame, path: Path, ending: str) -> None:
    """Write a table to a file, in the format of an ending.

    Raises:
        ValueError: the format does not hold a column's values.
    """
    if ending == ".parquet":
        parquet.write_table(pa.table({name: _typed(table[name]) for name in table}), path)
        return
    rows = ({name: _plain(value, ending) for name, value in row.items()} for row in table.to_dict("records"))
    with path.open("w", encoding="utf-8", newline="") as file:
        if ending == ".csv":
            file.write(",".join(map(_field, table)) + "\n")
            file.writelines(",".join(map(_field, row.values())) + "\n" for row in rows)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _typed(column: pd.Series) -> pa.Array:
    """Return a column with the one type that Parquet keeps of it."""
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError) as error:
        raise ValueError(
            f"the column {column.name} has values of several types, or larger than Parquet keeps ({error}): give out= "
            "the ending .jsonl, which takes each as it is"
        ) from error


def _plain(value: Any, ending: str) -> Any:
    """Return a value as JSON has it.

    Raises:
        ValueError: it holds bytes.
    """
    if isinstance(value, bytes):
        raise ValueError(f"a column holds bytes, which a file {ending} does not: give out= the ending .parquet")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(one, ending) for key, one in value.items()}
    return [_plain(one, ending) for one in value] if isinstance(value, list | tuple) else value


def _field(value: Any) -> str:
    """Return a value as a field of a CSV file; a lone carriage return, which ends a row for readers, is quoted too."""
    nested = isinstance(value, list | dict)
    text = json.dumps(value, ensure_ascii=False) if nested else "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text
