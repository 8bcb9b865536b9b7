"""Sentences of words with tags, out of CoNLL files or out of columns of lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdexp.common.problems import near
from kdexp.tasks.text import files
from kdexp.tasks.text.records import Records

CONLL = (".txt", ".conll", ".bio", ".iob", ".iob2")
"""Endings of files with a word a line, its tag in the last column, sentences apart by an empty line."""
DOCUMENT = "-DOCSTART-"
"""First word of a line that begins a document in CoNLL's files; no sentence."""


@dataclass
class Sentences(Records):
    """Sentences of one split.

    Attributes:
        words: of each sentence.
        tags: their ids, (words,) int64 each; None: nobody says.
    """

    words: list[list[str]]
    tags: list[np.ndarray] | None

    def __len__(self) -> int:
        return len(self.words)

    def take(self, index: np.ndarray) -> Sentences:
        """See :meth:`Records.take`."""
        some = [int(i) for i in index]
        return Sentences([self.words[i] for i in some], None if self.tags is None else [self.tags[i] for i in some])

    def content(self) -> Iterable[Any]:
        """See :meth:`Records.content`."""
        tags = [None] * len(self) if self.tags is None else [row.tolist() for row in self.tags]
        return zip(self.words, tags, strict=True)

    def texts(self) -> list[str]:
        """Return the words with spaces between."""
        return [" ".join(words) for words in self.words]


def read(path: Path, columns: tuple[str, str], names: list[str], labelled: bool) -> Sentences:
    """Read a file of sentences.

    Args:
        columns: of words and of tags, in files that name their columns.
        names: the tags in the order of their ids.
        labelled: False: tags are not looked at.

    Raises:
        ValueError: a word without a tag, an unknown tag, lists of unequal length; names the place.
    """
    rows = _conll(path) if path.suffix in CONLL else _columns(path, columns, names, labelled)
    words: list[list[str]] = []
    tags: list[np.ndarray] = []
    ids = {name: i for i, name in enumerate(names)}
    for where, sentence, given in rows:
        blank = next((word for word in sentence if not isinstance(word, str) or not word.strip()), None)
        if blank is not None:
            raise ValueError(f"{where}: {blank!r} is no word")
        words.append(sentence)
        if labelled:
            if len(given) != len(sentence):
                raise ValueError(f"{where}: {len(sentence)} words and {len(given)} tags; every word needs one")
            tags.append(np.array([_tag(where, tag, names, ids) for tag in given], dtype=np.int64))
    return Sentences(words, tags if labelled else None)


def _tag(where: str, tag: Any, names: list[str], ids: dict[str, int]) -> int:
    if isinstance(tag, str) and tag in ids:
        return ids[tag]
    if isinstance(tag, int) and not isinstance(tag, bool) and 0 <= tag < len(names):
        return tag
    raise ValueError(f"{where}: the tag {tag!r} is none of task.label_names={names}.{near(tag, names)}".rstrip("."))


Row = tuple[str, list[str], list[Any]]
"""Where a sentence stands, its words, its tags."""


def _conll(path: Path) -> Iterator[Row]:
    began, words, tags = 1, list[str](), list[str]()
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 (byte {error.start}): save it as UTF-8") from error
    for number, line in enumerate([*lines, ""], 1):
        cells = line.split()
        if cells and cells[0] != DOCUMENT:
            began = number if not words else began
            words.append(cells[0])
            tags += cells[-1:] if len(cells) > 1 else []
            if len(tags) not in (0, len(words)):
                raise ValueError(
                    f"{path}, line {number}: {line.strip()!r:.60}: some words of the sentence have a tag, some have "
                    "none: a word and its tag stand on a line, with a space between"
                )
        elif words:
            yield f"{path}, line {began}", words, tags
            words, tags = [], []


def _columns(path: Path, columns: tuple[str, str], names: list[str], labelled: bool) -> Iterator[Row]:
    wanted = list(columns if labelled else columns[:1])
    table = files.read(path, wanted)
    declared = table.classes.get(columns[1], [])
    if declared and declared != names and sorted(declared) == sorted(names):
        raise ValueError(
            f"{path}: the column {columns[1]} says that its ids stand for {declared}, and task.label_names={names} has "
            f"another order: give task.label_names={declared}"
        )
    for row, sentence in enumerate(table.columns[columns[0]]):
        tags = table.columns[columns[1]][row] if labelled else []
        if not isinstance(sentence, list) or not isinstance(tags, list):
            raise ValueError(f"{table.at(row)}: a list of words and a list of tags are needed")
        if not sentence and not labelled:
            raise ValueError(
                f"{table.at(row)}: there is no word, and answers are written sentence by sentence: remove it"
            )
        if sentence:
            yield table.at(row), sentence, tags
