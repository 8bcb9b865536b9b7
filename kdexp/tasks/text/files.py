"""Columns out of parquet, CSV, TSV, JSON and JSON-lines files.

Read here and not by ``datasets``, which guesses where this refuses (tried with 5.2): in a CSV file it fills a short row
with empty values, cuts the first field of a row that is too long, and drops a stray quote; in JSON it makes dates out
of texts that look like dates, and takes labels 1 and "1" for one kind. A text must arrive as it was written, or its row
be named.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

FORMATS = (".parquet", ".csv", ".tsv", ".json", ".jsonl")
"""Known endings. CSV has a header and the usual quoting; TSV a header and no quoting (a quote is a character);
JSON is a list of objects, JSON-lines one object a line. Text files are UTF-8."""


def header(path: Path) -> list[str]:
    """Names of a file's columns; reads as little as possible.

    Raises:
        ValueError: unknown ending, or not a file of that format.
    """
    stat = path.stat()
    return list(_header(path, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=256)
def _header(path: Path, size: int, mtime: int) -> tuple[str, ...]:
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return tuple(parquet.read_schema(path).names)
        if path.suffix in (".csv", ".tsv"):
            with open(path, encoding="utf-8-sig", newline="") as file:
                return tuple(next(_csv(file, path), (0, []))[1])
        if path.suffix == ".jsonl":
            with open(path, encoding="utf-8-sig") as file:
                return tuple(json.loads(next((line for line in file if line.strip()), "{}")))
        if path.suffix == ".json":
            return tuple(_objects(path)[0])
    except (OSError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix}: {error}") from error
    raise ValueError(f"{path}: unknown ending {path.suffix!r}; known are {', '.join(FORMATS)}")


def read(path: Path, columns: list[str]) -> dict[str, list[Any]]:
    """Read some columns completely.

    Raises:
        ValueError: a column is missing, or the file is damaged; says which columns or lines there are.
    """
    present = header(path)
    missing = [c for c in columns if c not in present]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; it has {', '.join(present)}")
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(path, columns=columns, memory_map=True).to_pydict()
        if path.suffix in (".csv", ".tsv"):
            return _read_csv(path, columns, present)
        rows = _objects(path) if path.suffix == ".json" else _lines(path)
        return {c: [row.get(c) for row in rows] for c in columns}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _csv(file: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line that each ends in.

    Raises:
        ValueError: naming the line whose quotes do not fit.
    """
    csv.field_size_limit(2**31 - 1)
    tsv: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    reader = csv.reader(file, **tsv) if path.suffix == ".tsv" else csv.reader(file, strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _read_csv(path: Path, columns: list[str], present: list[str]) -> dict[str, list[Any]]:
    wanted = [present.index(c) for c in columns]
    out: dict[str, list[Any]] = {c: [] for c in columns}
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = _csv(file, path)
        next(lines)
        for line, row in lines:
            if not row:
                continue
            if len(row) != len(present):
                raise ValueError(f"line {line} has {len(row)} fields, the header has {len(present)}")
            for column, i in zip(columns, wanted, strict=True):
                out[column].append(row[i])
    return out


def _objects(path: Path) -> list[dict[str, Any]]:
    rows = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("a list of objects is needed, [{...}, {...}]")
    return rows


def _lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        return [json.loads(line) for line in file if line.strip()]


# --- values --------------------------------------------------------------------------------------------------------


def texts(values: list[Any], where: str) -> list[str]:
    """Check that every value is text.

    Raises:
        ValueError: naming the first row (counted from 0) that is not.
    """
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(f"{where}, row {i}: {value!r} is no text; remove the row or fill it in")
    return values


def class_ids(values: list[Any], names: list[str], where: str) -> np.ndarray:
    """Labels as (n,) int64 ids. Text is looked up in ``names`` first and read as a number otherwise.

    Raises:
        ValueError: naming the first row (counted from 0) with a label outside ``names``.
    """
    position = {name: i for i, name in enumerate(names)}
    out = np.empty(len(values), dtype=np.int64)
    for i, value in enumerate(values):
        number: Any = position.get(value.strip()) if isinstance(value, str) else value
        if number is None and isinstance(value, str) and value.strip().lstrip("-").isdigit():
            number = int(value)
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if not isinstance(number, int) or not 0 <= number < len(names):
            hidden = " (-1 stands for hidden test labels: such a split cannot be evaluated)" if number == -1 else ""
            raise ValueError(
                f"{where}, row {i}: label {value!r} is neither one of {names} nor an id from 0 to "
                f"{len(names) - 1}{hidden}"
            )
        out[i] = number
    return out


def scores(values: list[Any], where: str) -> np.ndarray:
    """Labels as (n,) float32 scores.

    Raises:
        ValueError: naming the first row (counted from 0) that is not a finite number.
    """
    out = np.empty(len(values), dtype=np.float32)
    for i, value in enumerate(values):
        try:
            out[i] = float(value)
        except (TypeError, ValueError):
            out[i] = math.nan
        if not math.isfinite(out[i]):
            raise ValueError(f"{where}, row {i}: label {value!r} is no finite number")
    return out
