"""Questions with a context and its answers: SQuAD's rows, out of columns or out of the official JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdexp.tasks.text import files, values
from kdexp.tasks.text.files import Table
from kdexp.tasks.text.records import Records

COLUMNS = {"id": "id", "title": "title", "question": "question", "context": "context", "answers": "answers"}
"""What each column is called, by what it holds."""


@dataclass
class Questions(Records):
    """Questions of one split; every list has an entry a question.

    Attributes:
        ids: names, each once.
        titles: of the article that a context is part of.
        texts_asked: the questions.
        contexts: the texts that answers stand in.
        answers: (text, first character) of each answer that is right; [] = the context does not answer the question.
            None: nobody says.
    """

    ids: list[str]
    titles: list[str]
    texts_asked: list[str]
    contexts: list[str]
    answers: list[list[tuple[str, int]]] | None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: np.ndarray) -> Questions:
        """See :meth:`Records.take`."""
        some = [int(i) for i in index]
        lists = (self.ids, self.titles, self.texts_asked, self.contexts)
        ids, titles, asked, contexts = ([one[i] for i in some] for one in lists)
        return Questions(
            ids, titles, asked, contexts, None if self.answers is None else [self.answers[i] for i in some]
        )

    def content(self) -> Iterable[Any]:
        """See :meth:`Records.content`."""
        answers = self.answers if self.answers is not None else [None] * len(self)
        return zip(self.ids, self.titles, self.texts_asked, self.contexts, answers, strict=True)

    def texts(self) -> list[str]:
        """Return question and context in one."""
        return [f"{question} {context}" for question, context in zip(self.texts_asked, self.contexts, strict=True)]


def is_official(path: Path) -> bool:
    """Tell whether a file has the form that SQuAD is published in: articles, paragraphs, questions."""
    if path.suffix != ".json":
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.read(200).lstrip().startswith("{")


def read(path: Path, columns: dict[str, str], unanswerable: bool, labelled: bool) -> Questions:
    """Read a file of questions.

    Args:
        columns: what each of :data:`COLUMNS` is called; of the official form they are known, and ``title`` may name
            another of them.
        unanswerable: questions without an answer are let pass.
        labelled: False: answers are not looked at.

    Raises:
        ValueError: a row that cannot be used: an answer that is not where it is said to be, no answer, an id twice.
    """
    wanted = [name for name in COLUMNS if labelled or name != "answers"]
    table = _official(path) if is_official(path) else files.read(path, [columns[name] for name in wanted])
    names = columns
    if is_official(path):  # its names are known; which of them contexts are grouped by is still a choice
        names = {**COLUMNS, "title": columns["title"] if columns["title"] in COLUMNS else COLUMNS["title"]}
    for name in ("id", "title", "question", "context"):
        values.texts(table, names[name])
    ids = table.columns[names["id"]]
    _once(table, names["id"])
    contexts = _shared(table.columns[names["context"]])
    for name in ("question", "context"):
        blank = next((i for i, text in enumerate(table.columns[names[name]]) if not text.strip()), None)
        if blank is not None:
            raise ValueError(f"{table.at(blank, names[name])}: the text is empty; remove the row or fill it in")
    answers = None
    if labelled:
        given = table.columns[names["answers"]]
        answers = [_answers(table, i, names["answers"], given[i], contexts[i], unanswerable) for i in range(len(ids))]
    return Questions(ids, table.columns[names["title"]], table.columns[names["question"]], contexts, answers)


def _shared(texts: list[str]) -> list[str]:
    """Return equal texts as one object: a context belongs to several questions."""
    known: dict[str, str] = {}
    return [known.setdefault(text, text) for text in texts]


def _once(table: Table, column: str) -> None:
    seen: dict[str, int] = {}
    for i, name in enumerate(table.columns[column]):
        if name in seen:
            raise ValueError(
                f"{table.at(i, column)}: the id {name!r} stands in row {seen[name]} already, and predictions are "
                "written by id: give every question its own"
            )
        seen[name] = i


def _answers(
    table: Table, row: int, column: str, given: Any, context: str, unanswerable: bool
) -> list[tuple[str, int]]:
    """Return a question's answers, each looked up in its context.

    Raises:
        ValueError: naming the row.
    """
    where = table.at(row, column)
    texts, starts = (given.get(key) if isinstance(given, dict) else None for key in ("text", "answer_start"))
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise ValueError(
            f"{where}: {given!r:.80} are no answers: as many texts as places are needed, "
            "{'text': [...], 'answer_start': [...]}"
        )
    if not texts and not unanswerable:
        raise ValueError(
            f"{where}: there is no answer, and task.unanswerable=false: remove the row, or use task=squad_v2"
        )
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text.strip() or not isinstance(start, int) or isinstance(start, bool):
            raise ValueError(f"{where}: {text!r:.80} at {start!r} is no answer: a text and the number of a character")
        if context[start : start + len(text)] != text or start < 0:
            raise ValueError(f"{where}: {_misplaced(text, start, context)}")
    return list(zip(texts, starts, strict=True))


def _misplaced(text: str, start: int, context: str) -> str:
    there = context[max(start, 0) : max(start, 0) + len(text)]
    said = f"the answer {text!r:.80} does not stand at character {start} of its context, where {there!r:.80} stands"
    at = context.find(text)
    if at >= 0:
        bytes_counted = start >= 0 and context.encode()[start : start + len(text.encode())] == text.encode()
        counted = " (answer_start counts bytes there; it must count characters)" if bytes_counted else ""
        return f"{said}; it stands at {at}{counted}: correct answer_start"
    if text.lower() in context.lower():
        return f"{said}, and it stands in the context in other capitals only: write it as the context does"
    return f"{said}, and it is nowhere in the context: correct or remove the row"


def _official(path: Path) -> Table:
    """Read the published form as columns.

    Raises:
        ValueError: it is something else.
    """
    out: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    answers = [] if asked.get("is_impossible") else asked.get("answers", [])
                    out["id"].append(asked["id"])
                    out["title"].append(article.get("title", ""))
                    out["question"].append(asked["question"])
                    out["context"].append(paragraph["context"])
                    both = {key: [answer[key] for answer in answers] for key in ("text", "answer_start")}
                    out["answers"].append(both)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}: is the file cut short?") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is neither a list of objects nor SQuAD's published form (data, paragraphs, qas with id, question, "
            f"answers, context): {error} is missing or of another kind"
        ) from error
    return Table(path, out)
