"""Raw text: documents out of files, one after another, so that a corpus need not fit into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from kdexp.tasks.text import files

PLAIN = ".txt"
"""Ending of plain text, UTF-8: documents are apart by an empty line."""
FORMATS = (PLAIN, *files.FORMATS)
"""Known endings. Parquet and plain text are read piece by piece, the others whole."""
LONGEST = 1_000_000
"""Characters after which a document of a plain text is taken for the next one."""
ROWS = 256
"""Rows of a Parquet file that are read at once."""


def documents(path: Path, column: str) -> Iterator[str]:
    """Return the documents of a file in their order, without space around them; empty ones are left out.

    Args:
        path: one of :data:`FORMATS`.
        column: of the texts; plain text has none.

    Raises:
        ValueError: it cannot be read, has no such column, or holds something else than texts.
    """
    for row, text in enumerate(_values(path, column)):
        if text is None:
            continue
        if not isinstance(text, str):
            raise ValueError(
                f"{path}, column {column}, row {row}: {type(text).__name__} is no text: name another column"
            )
        stripped = text.strip()
        if stripped:
            yield stripped


def _values(path: Path, column: str) -> Iterator[object]:
    if path.suffix == PLAIN:
        yield from _plain(path)
    elif path.suffix == ".parquet":
        yield from _parquet(path, column)
    else:
        yield from files.read(path, [column]).columns[column]


def _plain(path: Path) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for line in file:
                if line.strip() and size < LONGEST:
                    lines.append(line)
                    size += len(line)
                    continue
                yield "".join(lines)
                lines, size = ([line], len(line)) if line.strip() else ([], 0)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 ({error.reason}): save it as UTF-8") from error
    yield "".join(lines)


def _parquet(path: Path, column: str) -> Iterator[object]:
    from pyarrow import ArrowException, parquet

    files.header(path)  # says what is wrong with the file as such
    try:
        for batch in parquet.ParquetFile(path, memory_map=True).iter_batches(ROWS, columns=[column]):
            yield from batch.column(0).to_pylist()
    except (OSError, ArrowException) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def place(text: str) -> float:
    """Return where a document falls in [0, 1): equal texts fall together, so that no text is in two splits."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2.0**64
