"""Columns out of parquet, CSV, TSV, JSON and JSON-lines files.

Read here and not by ``datasets``, which guesses where this refuses (tried with 5.2): in a CSV file it fills a short row
with empty values, cuts the first field of a row that is too long, and drops a stray quote; in JSON it makes dates out
of texts that look like dates, and takes labels 1 and "1" for one kind. A text must arrive as it was written, or its row
be named. What stops a reader is said with file, line and remedy; :mod:`kdexp.tasks.text.values` says what values mean.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

FORMATS = (".parquet", ".csv", ".tsv", ".json", ".jsonl")
"""Known endings. CSV has a header and the usual quoting; TSV a header and no quoting (a quote is a character);
JSON is a list of objects, JSON-lines one object a line. Text files are UTF-8."""

OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
"""First bytes of a text file -> what it is, where that is no UTF-8."""

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


@dataclass(frozen=True)
class Table:
    """Some columns of a file.

    Attributes:
        path: the file.
        columns: name -> values, one a row.
        lines: the line each row begins in, counted from 1; [] where the format has none.
        classes: column -> names of its classes in the order of their ids, where the column's type says them (the
            ClassLabel of ``datasets``, which parquet files keep).
    """

    path: Path
    columns: dict[str, list[Any]]
    lines: list[int] = field(default_factory=list)
    classes: dict[str, list[str]] = field(default_factory=dict)

    def at(self, row: int, column: str | None = None) -> str:
        """Return where a row (counted from 0) is, for people."""
        line = f", line {self.lines[row]}" if self.lines else ""
        return f"{self.path}{line}{'' if column is None else f', column {column}'}, row {row}"


def header(path: Path) -> list[str]:
    """Names of a file's columns; reads as little as possible.

    Raises:
        ValueError: unknown ending, or not a file of that format.
    """
    stat = path.stat()
    return list(_header(path, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=256)
def _header(path: Path, size: int, mtime: int) -> tuple[str, ...]:
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: unknown ending {path.suffix!r}; known are {', '.join(FORMATS)}")
    with _sentences(path, f"cannot be read as {path.suffix}"):
        names = _names(path)
        if not names:
            raise ValueError("it has no columns: a first line that names them is missing, or everything is")
        return names


def _names(path: Path) -> tuple[str, ...]:
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return tuple(parquet.read_schema(path).names)
    if path.suffix in (".csv", ".tsv"):
        with open(path, encoding="utf-8-sig", newline="") as file:
            return tuple(next(_csv(file, path), (1, []))[1])
    rows = _objects(path) if path.suffix == ".json" else (row for _, row in _lines(path))
    return tuple(next(iter(rows), {}))


def read(path: Path, columns: list[str] | None) -> Table:
    """Read some columns completely; None = all of them, those that only later objects of a JSON file have too.

    Raises:
        ValueError: a column is missing or there twice, or the file is damaged; says which columns or lines there are.
    """
    present = header(path)
    everything, columns = columns is None, present if columns is None else columns
    missing = [c for c in columns if c not in present]
    if missing:
        said = f"has no column {', '.join(missing)}; it has {', '.join(present)}"
        raise ValueError(f"{path} {separated_otherwise(path, present) or said}")
    twice = [c for c in dict.fromkeys(columns) if present.count(c) > 1]
    if twice:
        raise ValueError(f"{path} has several columns called {', '.join(twice)}: rename all but the one that counts")
    with _sentences(path, "cannot be read"):
        if path.suffix == ".parquet":
            return _read_parquet(path, columns)
        if path.suffix in (".csv", ".tsv"):
            return _read_csv(path, columns, present)
        numbered = [(0, row) for row in _objects(path)] if path.suffix == ".json" else list(_lines(path))
        rows, lines = [row for _, row in numbered], [line for line, _ in numbered if line]
        if everything:
            columns = list(dict.fromkeys(key for row in rows for key in row))
        return Table(path, {c: [row.get(c) for row in rows] for c in columns}, lines)


def separated_otherwise(path: Path, present: list[str]) -> str:
    """Say that a file's columns are separated otherwise than its ending promises; '' = nothing speaks for it."""
    if len(present) != 1 or path.suffix not in (".csv", ".tsv"):
        return ""
    right = "\t" if path.suffix == ".tsv" else ","
    used = next((sign for sign in SEPARATORS if sign != right and sign in present[0]), None)
    if used is None:
        return ""
    rename = ", or rename it to .tsv" if used == "\t" else ""
    return (
        f"has one column, {present[0]!r}: a {path.suffix} file is separated by {SEPARATORS[right]}, this one seems to "
        f"be separated by {SEPARATORS[used]}: save it with {SEPARATORS[right]}{rename}"
    )


def place(folder: str, root: str | None) -> Path | None:
    """Return a data folder as a path: below the root unless it is absolute or begins with ``.`` or ``~``.

    Returns:
        None when it lies below a root that is not set.
    """
    if folder.startswith((".", "~")) or Path(folder).is_absolute():
        return Path(folder).expanduser()
    return None if root is None else Path(root).expanduser() / folder


# --- what stops a reader -------------------------------------------------------------------------------------------


@contextmanager
def _sentences(path: Path, begin: str) -> Iterator[None]:
    """Turn whatever a reader of a format raises into a sentence that names the file, and the line where it has any."""
    try:
        _refuse_foreign(path)
        yield
    except UnicodeDecodeError as error:
        why = "it holds texts that are no UTF-8: write it anew" if path.suffix == ".parquet" else _undecodable(path)
        raise ValueError(f"{path} {begin}: {why}") from error
    except Exception as error:  # several libraries, with errors of many kinds
        raise ValueError(f"{path} {begin}: {str(error) or type(error).__name__}") from error


def _refuse_foreign(path: Path) -> None:
    """Refuse a file that its first bytes show to be something else.

    Raises:
        ValueError: an empty file, the pointer of git-lfs, another encoding.
    """
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise ValueError("the file is empty")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError("this is a git-lfs pointer instead of the file: run git lfs pull")
    encoding = OTHER_ENCODINGS.get(start[:2])
    if encoding is None and path.suffix != ".parquet" and b"\0" in start:
        encoding = "UTF-16 or no text at all (it holds NUL characters)"
    if encoding is not None and path.suffix != ".parquet":
        raise ValueError(f"the file is {encoding}: save it as UTF-8")


def _undecodable(path: Path) -> str:
    """Name the first line of a text file that is no UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = line[error.start : error.start + 1]
                shown = byte.decode("cp1252", "replace")
                return (
                    f"line {number}: byte 0x{byte.hex()} is no UTF-8 (in cp1252, which Windows and Excel write, it is "
                    f"{shown!r}): save the file as UTF-8 (in Excel: CSV UTF-8)"
                )
    return "it is no UTF-8: save the file as UTF-8"


# --- formats -------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path, columns: list[str]) -> Table:
    from pyarrow import parquet

    table = parquet.read_table(path, columns=columns, memory_map=True)
    stated = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = (stated.get("info") or {}).get("features") or {}
    classes = {
        c: list(f["names"]) for c, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"
    }
    return Table(path, table.to_pydict(), classes={c: names for c, names in classes.items() if c in columns})


def _csv(file: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line that each begins in.

    Raises:
        ValueError: naming the line whose quotes do not fit.
    """
    csv.field_size_limit(2**31 - 1)
    tsv: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    reader = csv.reader(file, **tsv) if path.suffix == ".tsv" else csv.reader(file, strict=True)
    began = 1
    try:
        for row in reader:
            yield began, row
            began = reader.line_num + 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            hint = f"a quote in the row that begins in line {began} is never closed: close it"
        else:
            hint = f"the row begins in line {began}: inside a quoted text a quote is written twice"
        raise ValueError(f'line {reader.line_num}: {error}; {hint} ("" stands for a quote)') from error


def _read_csv(path: Path, columns: list[str], present: list[str]) -> Table:
    wanted = [present.index(c) for c in columns]
    out: dict[str, list[Any]] = {c: [] for c in columns}
    lines, empty = [], None
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = _csv(file, path)
        next(rows)
        for line, row in rows:
            if not row:
                empty = empty or line
                continue
            if empty and len(present) == 1:
                how = "remove it" if path.suffix == ".tsv" else 'write "" for a row without text, or remove it'
                raise ValueError(f"line {empty} is empty, and a row of one column may be meant or none: {how}")
            if len(row) != len(present):
                why = "" if path.suffix == ".tsv" else ": put a text that holds commas in quotes"
                raise ValueError(f"line {line} has {len(row)} fields, the header has {len(present)}{why}")
            lines.append(line)
            for column, i in zip(columns, wanted, strict=True):
                out[column].append(row[i])
    return Table(path, out, lines)


def _objects(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        rows = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            raise ValueError(
                f"line {error.lineno}: a .json file is one list of objects, [{{...}}, {{...}}]; this one holds an "
                f"object a line: rename it to {path.stem}.jsonl"
            ) from error
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}: is the file cut short?") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("a list of objects is needed, [{...}, {...}]")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects with the line that each stands in."""
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=_object)
            except json.JSONDecodeError as error:
                if number == 1 and line.lstrip().startswith("["):
                    raise ValueError(
                        f"a .jsonl file holds one object a line; this one begins a list: rename it to {path.stem}.json"
                    ) from error
                raise ValueError(
                    f"line {number}, column {error.colno}: {error.msg}: the line is cut short or damaged; correct or "
                    "remove it"
                ) from error
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            if not isinstance(row, dict):
                list_of = f"; if the file is one list of objects, rename it to {path.stem}.json"
                raise ValueError(f"line {number} holds no object {{...}} but {_short(row)}{list_of}")
            yield number, row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON whose keys are there once.

    Raises:
        ValueError: a key is there twice.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has several values called {twice!r}: leave one")
    return made


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
