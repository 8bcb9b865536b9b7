"""Files of people: whatever is wrong with one is said with its name, its line and what to do."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from kdexp.tasks.base import DataContext
from kdexp.tasks.text.files import read
from kdexp.tasks.text.table import TextTask

ROWS = [f"the day number {i},{'good' if i % 2 else 'bad'}" for i in range(100)]
CSV = "text,label\n" + "\n".join(ROWS) + "\n"
LINES = [f'{{"text": "the day number {i}", "label": "{"good" if i % 2 else "bad"}"}}' for i in range(100)]


def with_line(number: int, line: str, whole: str = CSV) -> bytes:
    """The file with one line (counted from 1) exchanged."""
    lines = whole.split("\n")
    lines[number - 1] = line
    return "\n".join(lines).encode()


def table_task(folder: Path, name: str, **settings: object) -> TextTask:
    files = {"train": name, "validation": "validation.csv"}
    settings = {"columns": ["text"], "label_names": ["bad", "good"], **settings}
    return TextTask(name="mine", folder=str(folder), files=files, **settings)  # type: ignore[arg-type]


def said_before(task: TextTask, cache: Path, heldout: float = 0.1) -> list[str]:
    """What a person hears before anything is loaded."""
    context = DataContext("nowhere", {}, None, None, 32, None, heldout, cache)
    return task.problems(None) or task.unusable(context)


WRONG = {
    "open quote": (
        "train.csv",
        with_line(41, '"the day,good'),
        "line 101: unexpected end of data; a quote in the row that begins in line 41 is never closed",
    ),
    "stray quote": (
        "train.csv",
        with_line(41, '"the" day,good'),
        "line 41: ',' expected after .* a quote is written twice",
    ),
    "NUL": ("train.csv", with_line(41, "the\0day,good"), "line 41, column text, row 39: the text holds a NUL"),
    "NULs from the start": ("train.csv", CSV.encode("utf-16-le"), "UTF-16 or no text at all .* save it as UTF-8"),
    "UTF-16": ("train.csv", CSV.encode("utf-16"), "the file is UTF-16: save it as UTF-8"),
    "UTF-16 lines": ("train.jsonl", "\n".join(LINES).encode("utf-16"), "the file is UTF-16: save it as UTF-8"),
    "cp1252": (
        "train.csv",
        CSV.replace("number 60", "né").encode("cp1252"),
        "line 62: byte 0xe9 is no UTF-8 .*'é'.*: save the file as UTF-8",
    ),
    "cp1252 lines": ("train.jsonl", "\n".join(LINES).replace("number 60", "né").encode("cp1252"), "line 61: byte 0xe9"),
    "missing field": ("train.csv", with_line(41, "the day"), "line 41 has 1 fields, the header has 2"),
    "comma in a text": ("train.csv", with_line(41, "the, day,good"), "line 41 has 3 fields, .* in quotes"),
    "semicolons": (
        "train.csv",
        CSV.replace(",", ";").encode(),
        "seems to be separated by semicolons: save it with commas",
    ),
    "tabs in a csv": (
        "train.csv",
        CSV.replace(",", "\t").encode(),
        "separated by tabs: save it with commas, or rename it to .tsv",
    ),
    "commas in a tsv": ("train.tsv", CSV.encode(), "separated by commas: save it with tabs"),
    "two of one name": (
        "train.csv",
        b"text,label,label\na,good,x\nb,bad,x\n",
        "several columns called label: rename all but",
    ),
    "one key twice": (
        "train.jsonl",
        b'{"text": "a", "label": "bad", "label": "good"}\n',
        "line 1: an object has several values called 'label'",
    ),
    "empty": ("train.csv", b"", "the file is empty"),
    "empty json": ("train.json", b"", "the file is empty"),
    "blank lines": ("train.csv", b"\n\n", "it has no columns"),
    "header only": ("train.csv", b"text,label\n", "has no rows"),
    "no objects": ("train.json", b"[]", "it has no columns"),
    "one row": ("train.csv", b"text,label\nthe day,good\n", r"the 1 training row\(s\) all have the label 'good'"),
    "one class": (
        "train.csv",
        CSV.replace("good", "bad").encode(),
        r"the 100 training row\(s\) all have the label 'bad': nothing can be learned",
    ),
    "lone surrogate": (
        "train.jsonl",
        "\n".join([*LINES[:50], '{"text": "x \\udc00", "label": "bad"}']).encode(),
        "line 51, column text, row 50: .* lone surrogate",
    ),
    "cut line": (
        "train.jsonl",
        "\n".join([*LINES[:79], '{"text": "the da']).encode(),
        "line 80, column 10: Unterminated string",
    ),
    "cut json": (
        "train.json",
        b'[{"text": "a", "label": "bad"},\n{"text": "b',
        "line 2, column 10: Unterminated string .*cut short",
    ),
    "lines in a json": ("train.json", "\n".join(LINES).encode(), "line 2: .* rename it to train.jsonl"),
    "list in a jsonl": (
        "train.jsonl",
        b'[\n{"text": "a", "label": "bad"}\n]',
        "begins a list: rename it to train.json",
    ),
    "list in one line": (
        "train.jsonl",
        b'[{"text": "a", "label": "bad"}]',
        "line 1 holds no object .* rename it to train.json",
    ),
    "number in a jsonl": ("train.jsonl", "\n".join([*LINES[:9], "7"]).encode(), "line 10 holds no object {...} but 7"),
    "text is a number": (
        "train.jsonl",
        "\n".join([*LINES[:9], '{"text": 7, "label": "bad"}']).encode(),
        "line 10, column text, row 9: 7 is no text",
    ),
    "unknown label": (
        "train.csv",
        with_line(41, "the day,goood"),
        "line 41, row 39: label 'goood' is neither .* Did you mean good",
    ),
    "git-lfs": (
        "train.parquet",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "git-lfs pointer .* git lfs pull",
    ),
    "no parquet": ("train.parquet", b"PAR1 and nothing else", "train.parquet cannot be read as .parquet"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_refused_before_anything_is_loaded(tmp_path: Path, kind: str) -> None:
    name, content, expected = WRONG[kind]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "validation.csv").write_text(CSV)
    task = table_task(tmp_path / "data", name)
    (tmp_path / "data" / name).write_bytes(content)
    [said] = said_before(task, tmp_path / "cache")
    assert re.search(expected, said), said
    assert said.startswith("task=mine: ") and (name in said or "training row(s)" in said) and "\n" not in said
    assert not (tmp_path / "cache").exists()


def test_what_is_wrong_in_several_files_is_said_at_once(tmp_path: Path) -> None:
    for name in ("train.csv", "validation.csv"):
        (tmp_path / name).write_bytes(with_line(7, "x,ugly"))
    said = said_before(table_task(tmp_path, "train.csv"), tmp_path / "cache")
    assert [text.partition(", line 7")[0].rpartition("/")[2] for text in said] == ["train.csv", "validation.csv"]


def test_good_files_with_odd_forms_are_read(tmp_path: Path) -> None:
    """A byte-order mark, Windows' line ends, quoted line breaks, and a text far beyond the library's own limit."""
    long = "word " * 60_000
    content = f'text,label\r\n"two\nlines",good\r\n"{long}",bad\r\n"say ""yes""",good\r\n'
    (tmp_path / "train.csv").write_bytes(b"\xef\xbb\xbf" + content.encode())
    table = read(tmp_path / "train.csv", ["text", "label"])
    assert table.columns == {"text": ["two\nlines", long, 'say "yes"'], "label": ["good", "bad", "good"]}
    assert table.lines == [2, 4, 5]


def test_too_few_rows_to_hold_any_out(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,good\nb,bad\n")
    (tmp_path / "validation.csv").write_text("text,label\na,good\n")
    task = table_task(tmp_path, "train.csv")
    assert "data.heldout=0.1 of 2 training rows leaves one side empty" in said_before(task, tmp_path / "cache")[0]
    assert said_before(task, tmp_path / "cache", heldout=0.0) == []


def test_a_regression_needs_two_scores(tmp_path: Path) -> None:
    for name in ("train.csv", "validation.csv"):
        (tmp_path / name).write_text("text,label\n" + "a,2.5\n" * 20)
    settings = {"kind": "regression", "label_names": [], "metrics": ["pearson"], "metric": "pearson"}
    [said] = said_before(table_task(tmp_path, "train.csv", **settings), tmp_path / "cache")
    assert "all have the score 2.5" in said


def test_names_are_texts(tmp_path: Path) -> None:
    assert table_task(tmp_path, "train.csv", label_names=[1, 2, 3]).label_names == ["1", "2", "3"]
    with pytest.raises(ValueError, match="a name is a text, and True is none: put it in quotes"):
        table_task(tmp_path, "train.csv", label_names=[True, False])


def test_a_grid_reads_once_and_the_cache_spares_even_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train.csv", "validation.csv"):
        (tmp_path / name).write_text(CSV)
    reads: list[Path] = []
    monkeypatch.setattr("kdexp.tasks.text.files.read", lambda path, columns: reads.append(path) or read(path, columns))
    for _ in range(5):
        assert said_before(table_task(tmp_path, "train.csv"), tmp_path / "cache") == []
    assert len(reads) == 2
    (tmp_path / "broken.csv").write_bytes(with_line(41, "x,ugly"))
    for _ in range(5):
        assert "label 'ugly'" in said_before(table_task(tmp_path, "broken.csv"), tmp_path / "cache")[0]
    assert len(reads) == 4
    reads.clear()
    table_task(tmp_path, "train.csv").fingerprint(None, tmp_path / "cache")
    monkeypatch.setattr("kdexp.tasks.text.sequence._READINGS", {})  # as in another process
    assert said_before(table_task(tmp_path, "train.csv"), tmp_path / "cache") == []
    assert reads == []
    os.utime(tmp_path / "train.csv", ns=(1, 1))
    (tmp_path / "train.csv").write_bytes(with_line(41, "x,ugly"))
    assert "label 'ugly'" in said_before(table_task(tmp_path, "train.csv"), tmp_path / "cache")[0]


@pytest.mark.parametrize(
    "content", ["{}", "[]", "null", "", '{"value": {"sha256": "0"}}', '{"sha256": "0", "value": {}}']
)
def test_a_damaged_note_in_the_cache_is_made_anew(tmp_path: Path, content: str) -> None:
    for name in ("train.csv", "validation.csv"):
        (tmp_path / name).write_text(CSV)
    task = table_task(tmp_path, "train.csv")
    expected = task.fingerprint(None, tmp_path / "cache")
    [note] = (tmp_path / "cache" / "fingerprints").glob("*.json")
    note.write_text(content)
    assert said_before(task, tmp_path / "cache") == []
    assert task.fingerprint(None, tmp_path / "cache") == expected
    assert expected in note.read_text()


def test_the_log_says_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "a,1\nb,2\n" * 10)
    (tmp_path / "validation.csv").write_text("text,label\na,3\nb,2\n")
    task = table_task(tmp_path, "train.csv", label_names=["1", "2", "3"])
    assert task.record(None, tmp_path / "cache") == [
        "task mine: train has 20 rows: '1' 10, '2' 10, '3' 0",
        "task mine: validation has 2 rows: '1' 0, '2' 1, '3' 1",
        "task mine: no training row has the class '3': no model can learn it",
    ]
