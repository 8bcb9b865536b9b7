"""Small sets of questions in SQuAD's form, whose answers a toy model can learn: the one good word of the context."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import FILLER, GOOD


def question(row: int, articles: int = 8, words: int = 12, unanswerable: bool = False) -> dict[str, Any]:
    """A row: a context of filler words, one of them good; every third has none where that is allowed."""
    context = [FILLER[(row * k + k) % len(FILLER)] for k in range(1, words + 1)]
    answer, place = GOOD[row % len(GOOD)], row * 5 % words
    nothing = unanswerable and row % 3 == 0
    if not nothing:
        context[place] = answer
    begin = len(" ".join(context[:place])) + (place > 0)
    return {
        "id": f"q{row}",
        "title": f"article {row % articles}",
        "question": "its light felt so" if row % 2 else "the day was",
        "context": " ".join(context),
        "answers": {"text": [] if nothing else [answer], "answer_start": [] if nothing else [begin]},
    }


def folder(path: Path, train: int = 64, validation: int = 24, **settings: Any) -> Path:
    """Write train.jsonl and validation.jsonl; articles of validation are its own."""
    path.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", range(train)), ("validation", range(train, train + validation))):
        made = [question(row, **settings) for row in rows]
        if split == "validation":
            made = [{**row, "title": f"other {row['title']}"} for row in made]
        (path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, made)) + "\n")
    return path


def official(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows as SQuAD publishes them."""
    articles: dict[str, Any] = {}
    for row in rows:
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        asked = {"id": row["id"], "question": row["question"], "answers": answers, "is_impossible": not answers}
        articles.setdefault(row["title"], []).append({"context": row["context"], "qas": [asked]})
    return {"version": "2.0", "data": [{"title": title, "paragraphs": parts} for title, parts in articles.items()]}


def words(place: Path, task: str = "squad") -> list[str]:
    """Overrides that read such a folder."""
    return [
        f"task={task}", f"task.folder={place}", "task.files.train=train.jsonl",
        "task.files.validation=validation.jsonl", "task.name=toy",
    ]  # fmt: skip
