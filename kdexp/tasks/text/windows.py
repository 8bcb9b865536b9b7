"""Contexts cut into windows that overlap, each behind its question."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdexp.tasks.text.arrays import Parts
from kdexp.tasks.text.questions import Questions

CHUNK = 1024
"""Questions a call of the tokenizer."""


def cut(reader: Any, rows: Questions, max_length: int, stride: int, question_tokens: int) -> Parts:
    """Tokenise questions with their contexts.

    Args:
        reader: a fast tokenizer of transformers.
        rows: the questions.
        max_length: tokens of a window.
        stride: tokens of context that neighbouring windows share.
        question_tokens: a question is cut after so many, and after half of ``max_length``.

    Returns:
        Arrays: those of :class:`kdexp.tasks.text.encoding.Encoded` but with labels (w, 2), ``question`` (w,),
        ``places`` (w, 3), ``characters`` (total tokens, 2), as :class:`kdexp.tasks.text.span.Windows` has them.
        Numbers: ``pad``; ``cut_questions``; ``lost_answers`` that lie in no window as a whole.
    """
    typed = "token_type_ids" in reader.model_input_names
    tokens: list[int] = []
    types: list[int] = []
    characters: list[tuple[int, int]] = []
    lengths, labels, owner, places = [], [], [], []
    most, shortened, reached = min(question_tokens, max_length // 2), 0, set[int]()
    for begin in range(0, len(rows), CHUNK):
        asked = []
        for question in rows.texts_asked[begin : begin + CHUNK]:
            short = _first(reader, question.strip(), most)
            shortened += len(short) < len(question.strip())
            asked.append(short)
        out = reader(
            asked, rows.contexts[begin : begin + CHUNK], truncation="only_second", max_length=max_length, stride=stride,
            return_overflowing_tokens=True, return_offsets_mapping=True, padding=False, return_token_type_ids=typed,
        )  # fmt: skip
        for window, source in enumerate(out["overflow_to_sample_mapping"]):
            row, ids, offsets = begin + source, out["input_ids"][window], out["offset_mapping"][window]
            inside = [place for place, which in enumerate(out.sequence_ids(window)) if which == 1]
            first, stop = (inside[0], inside[-1] + 1) if inside else (0, 0)
            null = ids.index(reader.cls_token_id) if reader.cls_token_id in ids else 0
            start, end = _label(offsets, first, stop, rows, row, null)
            if start != null:
                reached.add(row)
            tokens += ids
            types += out["token_type_ids"][window] if typed else []
            lengths.append(len(ids))
            labels.append((start, end))
            owner.append(row)
            places.append((first, stop, null))
            characters += [pair if first <= place < stop else (0, 0) for place, pair in enumerate(offsets)]
    answered = sum(bool(given) for given in rows.answers or [])
    arrays: dict[str, np.ndarray] = {
        "tokens": np.array(tokens, np.int32),
        **({"types": np.array(types, np.int8)} if typed else {}),
        "offsets": np.cumsum([0, *lengths], dtype=np.int64),
        "labels": np.array(labels, np.int64).reshape(-1, 2),
        "question": np.array(owner, np.int32),
        "places": np.array(places, np.int32).reshape(-1, 3),
        "characters": np.array(characters, np.int32).reshape(-1, 2),
    }
    pad = int(reader.pad_token_id or 0)
    return arrays, {"pad": pad, "cut_questions": shortened, "lost_answers": answered - len(reached)}


def _first(reader: Any, text: str, tokens: int) -> str:
    """Return the beginning of a text that has at most so many tokens."""
    offsets = reader(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return text if len(offsets) <= tokens else text[: offsets[tokens - 1][1]]


def _label(
    offsets: list[tuple[int, int]], first: int, stop: int, rows: Questions, row: int, null: int
) -> tuple[int, int]:
    """Return the positions of the first answer's first and last token; twice the null position if it is not here."""
    given = rows.answers[row] if rows.answers is not None else []
    if not given or first == stop:
        return null, null
    text, begin = given[0][0].rstrip(), given[0][1]
    end, begin = begin + len(text), begin + len(text) - len(text.lstrip())
    if offsets[first][0] > begin or offsets[stop - 1][1] < end:
        return null, null
    start = min(place for place in range(first, stop) if offsets[place][1] > begin)
    last = max(place for place in range(first, stop) if offsets[place][0] < end)
    return start, last
