"""Examples on a study's page: marks where they belong, everything escaped, nothing where no run has any."""

from __future__ import annotations

import json
import re
from pathlib import Path

from analysis import report, specimens
from analysis.collect import collect
from tests.analysis.synthetic import make_result, write_points, write_run

TEXT = "The <b>day</b> was warm and kind"


def shown(answer: list, right: list, form: str = "text") -> dict:
    return {"as": form, "examples": [{"id": 0, "title": "How?", "text": TEXT, "right": right, "answer": answer}]}


def study(root: Path, student: dict, teacher: dict | None) -> object:
    result = make_result("s", "toy", "kd", "first", 1)
    folder = write_run(root, result) / "predictions"
    write_points(root, "s", [result])
    folder.mkdir()
    (folder / "validation.shown.json").write_text(json.dumps(student))
    if teacher is not None:
        (folder / "teacher.validation.shown.json").write_text(json.dumps(teacher))
    return collect("s", root, "folders")


def test_a_span_is_marked_by_whom_it_belongs_to(tmp_path):
    found = study(tmp_path, shown([[19, 32, ""]], [[19, 23, ""], [28, 32, ""]]), shown([[28, 32, ""]], []))
    (one,) = specimens.section(found)
    parts = [(part["text"], part["mark"], part["taught"]) for part in one["texts"][0]["parts"]]
    assert parts == [(TEXT[:19], "", False), ("warm", "both", False), (" and ", "mine", False), ("kind", "both", True)]
    html = report.page(found)
    assert (
        '<mark class="both"><u class="taught">kind</u></mark>' in html
        and "&lt;b&gt;day" in html
        and "<b>day" not in html
    )


def test_entities_stand_in_a_table(tmp_path):
    found = study(
        tmp_path, shown([[19, 23, "G"]], [[19, 23, "G"], [28, 32, "G"]], "table"), shown([[28, 32, "B"]], [], "table")
    )
    (one,) = specimens.section(found)
    assert [(row["words"], row["right"], row["teacher"], row["student"]) for row in one["table"]] == [
        ("warm", "G", "–", "G"),
        ("kind", "G", "B", "–"),
    ]
    assert re.search(r'id="examples".*<td class="text">kind</td>', report.page(found), re.S)


def test_no_answer_is_said_and_damage_is_passed_over(tmp_path):
    found = study(tmp_path, shown([], [[19, 23, ""]]), None)
    (one,) = specimens.section(found)
    assert one["texts"][0]["silent"] == "the student gives none" and not one["taught"]
    (tmp_path / "s").joinpath(next(iter(found.runs["name"])), "predictions", "validation.shown.json").write_text("{")
    assert specimens.section(found) == [] and 'id="examples"' not in report.page(found)


def test_blanks_stand_around_marks_and_right_answers_that_overlap_are_one(tmp_path):
    found = study(tmp_path, shown([[4, 7, ""]], [[19, 23, ""], [19, 32, ""]]), None)
    html = report.page(found)
    assert '</mark>day&lt;/b&gt; was <mark class="gold">warm and kind</mark>' in html
    assert specimens._joined(" a\n\tb ") == " a b " and specimens._joined("\n") == " "
