"""What the values of a file's columns mean: texts, classes, scores; the same in every format."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from kdexp.common.problems import near
from kdexp.tasks.text.files import Table

READING = 2
"""Raise it when the same file may be read as other rows than before."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


def texts(table: Table, column: str) -> list[str]:
    """Check that every value of a column is text that a tokenizer can read.

    Raises:
        ValueError: naming the first row that is not.
    """
    for i, value in enumerate(table.columns[column]):
        if not isinstance(value, str):
            raise ValueError(f"{table.at(i, column)}: {value!r} is no text; remove the row or fill it in")
        if "\0" in value:
            raise ValueError(
                f"{table.at(i, column)}: the text holds a NUL character (the file may be UTF-16, or damaged); save it "
                "as UTF-8, or remove the character"
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{table.at(i, column)}: the text holds half of a character (\\u{ord(value[error.start]):04x}, a lone "
                "surrogate), which no tokenizer reads; it was cut in two when the file was made: remove it"
            ) from error
    return table.columns[column]


def class_ids(table: Table, column: str, names: list[str]) -> np.ndarray:
    """Labels as (n,) int64 ids.

    A label is a name, an id, or a truth value (false is 0, true is 1, unless a name says so); numbers may be written as
    text and with a decimal point. Where a name is a number itself (stars 1 to 5), numbers are names, never ids, unless
    the column's own type says that they are ids (:attr:`Table.classes`).

    Raises:
        ValueError: naming the first row that cannot be one of ``names``; or ids and names stand side by side; or the
            column's type has the names in another order.
    """
    _same_order(table, column, names)
    reader = _Labels(names, declared=column in table.classes)
    out = np.empty(len(table.columns[column]), dtype=np.int64)
    kinds: dict[bool, int] = {}  # whether a name was given -> the first such row
    for i, value in enumerate(table.columns[column]):
        number, named = reader.read(value)
        if number is None:
            raise ValueError(f"{table.at(i)}: {reader.refusal(value)}")
        out[i] = number
        kinds.setdefault(named, i)
    if len(kinds) == 2:
        name, number = (table.columns[column][kinds[kind]] for kind in (True, False))
        raise ValueError(
            f"{table.at(max(kinds.values()))}: the column {column} holds names ({name!r}) and ids ({number!r}) side by "
            "side: write one of them throughout"
        )
    return out


def _same_order(table: Table, column: str, names: list[str]) -> None:
    """Refuse a column whose type says the same names in another order."""
    declared = table.classes.get(column, [])
    plain, wanted = [n.casefold() for n in declared], [n.casefold() for n in names]
    if plain != wanted and sorted(plain) == sorted(wanted):
        raise ValueError(
            f"{table.path}: the column {column} says that its ids stand for {declared}, and task.label_names="
            f"{names} has another order: give task.label_names={declared}"
        )


class _Labels:
    """Reads single labels.

    Args:
        names: the classes in the order of their ids.
        declared: numbers are ids, whatever the names look like.
    """

    def __init__(self, names: list[str], declared: bool) -> None:
        self.names = names
        self.ids = {name: i for i, name in enumerate(names)}
        numbers = [float(name) if NUMBER.fullmatch(name) else None for name in names]
        self.numbered = not declared and any(number is not None for number in numbers)
        self.numbers = {n: i for i, n in enumerate(numbers) if n is not None and numbers.count(n) == 1}
        self.seen: dict[Any, tuple[int | None, bool]] = {}

    def read(self, value: Any) -> tuple[int | None, bool]:
        """Return a label's id (None = it is no label), and whether it was given as a name."""
        key = (type(value), value)
        try:
            if key not in self.seen:
                self.seen[key] = self._read(value)
            return self.seen[key]
        except TypeError:  # a list or an object
            return None, False

    def _read(self, value: Any) -> tuple[int | None, bool]:
        if isinstance(value, str):
            value = value.strip()
            if value in self.ids:
                return self.ids[value], True
            truth = {"true": True, "false": False}.get(value.casefold())
            if truth is None and not NUMBER.fullmatch(value):
                return None, False
            value = float(value) if truth is None else truth
        if isinstance(value, bool):
            same = [i for i, name in enumerate(self.names) if name.casefold() == str(value).casefold()]
            if len(same) == 1:
                return same[0], True
        if not isinstance(value, int | float):
            return None, False
        if self.numbered:
            return self.numbers.get(float(value)), True
        fits = float(value).is_integer() and 0 <= value < len(self.names)
        return (int(value) if fits else None), False

    def refusal(self, value: Any) -> str:
        """Say why a value is no label, and what to do."""
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            return f"there is no label ({value!r}): fill it in or remove the row"
        said = f"label {value!r} is neither one of {self.names} nor an id from 0 to {len(self.names) - 1}"
        try:
            number = float(value)
        except (TypeError, ValueError):
            return f"{said}.{near(value, self.names)} Correct the row or task.label_names"
        if number == -1:
            return f"{said} (-1 stands for hidden test labels: such a split cannot be evaluated)"
        if self.numbered:
            return (
                f"label {value!r} is none of {self.names}; names that are numbers are names, never ids: correct the "
                "row or task.label_names"
            )
        if not number.is_integer():
            return f"{said}; if the labels are scores, say task.kind=regression task.label_names=[]"
        return f"{said}: correct the row or task.label_names"


def scores(table: Table, column: str) -> np.ndarray:
    """Labels as (n,) float32 scores; they may be written as text.

    Raises:
        ValueError: naming the first row that is not a finite number.
    """
    values = table.columns[column]
    out = np.empty(len(values), dtype=np.float32)
    for i, value in enumerate(values):
        try:
            out[i] = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            out[i] = math.nan
        if not math.isfinite(out[i]):
            comma = isinstance(value, str) and NUMBER.fullmatch(value.strip().replace(",", ".", 1))
            remedy = "write it with a decimal point" if comma else "correct or remove the row, or choose task.label"
            raise ValueError(f"{table.at(i)}: label {value!r} is no finite number: {remedy}")
    return out
