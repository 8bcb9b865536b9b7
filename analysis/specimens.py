"""Some examples of a study for its page: a text with what is right, the teacher's and the student's answer marked.

A run keeps them as ``predictions/validation.shown.json``, and its teacher's with ``teacher.`` before the name, where
its task has something to show: marks ``[first character, the one after the last, label]`` in a text.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from kdexp.common.redact import one_line

from .collect import Collected

FILE = "validation.shown.json"
MOST = 12
"""Examples that are shown of a task."""
ROWS = 60
"""Lines of a table of marks."""


def section(found: Collected) -> list[dict[str, Any]]:
    """What the page shows of each task: its best run that has kept examples; [] where no run has any."""
    scores = found.scores[(found.scores["who"] == "student") & (found.scores["split"] == "validation")]
    chosen = found.runs.merge(scores, on=["run", "metric"], how="left").sort_values("value", ascending=False)
    out = []
    for task, runs in chosen.groupby("task", sort=True):
        folders = ((name, found.folder / name / "predictions") for name in runs["name"])
        kept = next(((name, place, shown) for name, place in folders if (shown := _read(place / FILE))), None)
        if kept is not None:
            name, place, shown = kept
            out.append({"task": task, "run": name, **_shown(shown, _read(place / f"teacher.{FILE}"))})
    return out


def _read(path: Path) -> dict[str, Any]:
    """What a file holds; {} if it is not there or no examples."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) and isinstance(held.get("examples"), list) else {}


def _shown(student: dict[str, Any], teacher: dict[str, Any]) -> dict[str, Any]:
    taught = {one["id"]: one["answer"] for one in teacher.get("examples", [])}
    examples = sorted(student["examples"], key=lambda one: (_right(one), one["id"]))[:MOST]
    if student.get("as") == "table":
        rows = [row for one in examples for row in _rows(one, taught.get(one["id"]))]
        return {"table": rows[:ROWS], "texts": [], "taught": bool(taught)}
    return {"table": [], "texts": [_text(one, taught.get(one["id"])) for one in examples], "taught": bool(taught)}


def _right(one: dict[str, Any]) -> bool:
    """Whether all that was answered is right: one of several right spans, or all marks of a table."""
    if not one["right"] or not one["answer"]:
        return one["right"] == one["answer"]
    return all(mark in one["right"] for mark in one["answer"])


class Part(str):
    """A part of a text, shown as it is: the blanks at its ends stand between it and its neighbours."""


def _joined(text: str) -> str:
    """The text on one line without control characters; a blank at an end stays one."""
    ends = [" " if text[place : place + 1].isspace() else "" for place in (0, len(text) - 1)]
    inside = one_line(text)
    return f"{ends[0]}{inside}{ends[1]}" if inside else ends[0]


def _text(one: dict[str, Any], teacher: list[Any] | None) -> dict[str, Any]:
    """The text in parts, each marked by whom it belongs to."""
    text, right, mine, theirs = one["text"], one["right"], one["answer"], teacher or []
    cuts = sorted({0, len(text), *(int(mark[side]) for mark in [*right, *mine, *theirs] for side in (0, 1))})
    parts: list[dict[str, Any]] = []
    for begin, end in pairwise(cuts):
        inside = [any(mark[0] <= begin and end <= mark[1] for mark in marks) for marks in (right, mine, theirs)]
        mark = {(True, True): "both", (True, False): "gold", (False, True): "mine"}.get((inside[0], inside[1]), "")
        alike = parts and (parts[-1]["mark"], parts[-1]["taught"]) == (mark, inside[2])
        if alike:  # one of several right answers ends here, another goes on
            begin = parts.pop()["begin"]
        parts.append({"begin": begin, "text": Part(_joined(text[begin:end])), "mark": mark, "taught": inside[2]})
    said = [("no answer is right", not right), ("the student gives none", not mine)]
    said.append(("the teacher gives none", teacher is not None and not theirs))
    return {"title": one["title"], "parts": parts, "silent": "; ".join(text for text, holds in said if holds)}


def _rows(one: dict[str, Any], teacher: list[Any] | None) -> list[dict[str, str]]:
    """A line for every span that is right or that somebody marked."""
    sides = {"right": one["right"], "teacher": teacher or [], "student": one["answer"]}
    places = sorted({(int(mark[0]), int(mark[1])) for marks in sides.values() for mark in marks})
    return [
        {
            "text": one["text"] if place == places[0] else "",
            "words": one["text"][place[0] : place[1]],
            **{who: ", ".join(m[2] for m in marks if (m[0], m[1]) == place) or "–" for who, marks in sides.items()},
        }
        for place in places
    ]
