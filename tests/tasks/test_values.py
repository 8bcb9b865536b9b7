"""Labels mean the same in every format, and what cannot be meant is said."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from kdexp.tasks.text import values
from kdexp.tasks.text.files import read

FORMATS = (".parquet", ".csv", ".json", ".jsonl")
STARS = ["1", "2", "3", "4", "5"]


def write(folder: Path, ending: str, labels: list[Any], declared: list[str] | None = None) -> Path:
    """One file with a row a label, as each format's own writers would make it."""
    path, rows = folder / f"rows{ending}", [{"text": f"no. {i}", "label": label} for i, label in enumerate(labels)]
    if ending == ".parquet":
        table = pa.Table.from_pylist(rows)
        if declared is not None:
            features = {"label": {"names": declared, "_type": "ClassLabel"}, "text": {"dtype": "string"}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        parquet.write_table(table, path)
    elif ending == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(rows)
    elif ending == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ids(path: Path, names: list[str]) -> list[int]:
    return values.class_ids(read(path, ["text", "label"]), "label", names).tolist()


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["bad", "good"], ["good", "bad", "good"], [1, 0, 1]),
        (["bad", "good"], [1, 0, 1], [1, 0, 1]),
        (["bad", "good"], ["1", "0"], [1, 0]),
        (["bad", "good"], [0.0, 1.0], [0, 1]),
        (["bad", "good"], [True, False], [1, 0]),
        (["false", "true"], [True, False], [1, 0]),
        (["true", "false"], [True, False], [0, 1]),
        (["True", "False"], ["True", "false"], [0, 1]),
        (["1", "0"], [1, 0, 0], [0, 1, 1]),
        (["1", "0"], ["1", "0"], [0, 1]),
        (["1", "0"], [1.0, 0.0], [0, 1]),
        (["1", "0"], [True, False], [0, 1]),
        (["0", "1"], [0, 1, 1], [0, 1, 1]),
        (STARS, [4, 1, 3, 2], [3, 0, 2, 1]),  # nobody gave 5
        (STARS, [5, 1], [4, 0]),
        (STARS, ["4", "1"], [3, 0]),
        (STARS, [4.0, 1.0], [3, 0]),
        (["0.5", "1.5"], [1.5, 0.5], [1, 0]),
        (["1", "other"], ["other", "1"], [1, 0]),
    ],
)
def test_one_meaning_in_every_format(
    tmp_path: Path, ending: str, names: list[str], labels: list[Any], expected: list[int]
) -> None:
    assert ids(write(tmp_path, ending, labels), names) == expected


def test_a_column_whose_type_says_ids_has_ids(tmp_path: Path) -> None:
    """``datasets`` writes class ids with their names beside them; then 0 to 4 are no stars."""
    path = write(tmp_path, ".parquet", [4, 0, 1], declared=STARS)
    assert ids(path, STARS) == [4, 0, 1]
    with pytest.raises(ValueError, match=r"label 4 is none of \['1', '2', '3', '4'\]|neither one of"):
        ids(path, STARS[:4])
    path = write(tmp_path, ".parquet", [0, 1], declared=["positive", "negative"])
    with pytest.raises(ValueError, match=r"another order: give task.label_names=\['positive', 'negative'\]"):
        ids(path, ["negative", "positive"])
    assert ids(path, ["Positive", "Negative"]) == [0, 1]
    assert ids(path, ["entailment", "other"]) == [0, 1]


@pytest.mark.parametrize(
    ("ending", "names", "labels", "said"),
    [
        (
            ".csv",
            STARS,
            ["1", "0"],
            r"rows.csv, line 3, row 1: label '0' is none of .* names that are numbers are names",
        ),
        (".parquet", STARS, [1, 6], r"row 1: label 6 is none of"),
        (".jsonl", ["bad", "good"], ["good", "0"], r"line 2, row 1: the column label holds names \('good'\) and ids"),
        (".csv", ["bad", "good"], ["good", "godo"], r"line 3, row 1: label 'godo' is neither .* Did you mean good\?"),
        (".csv", ["bad", "good"], ["good", ""], r"line 3, row 1: there is no label \(''\): fill it in or remove"),
        (".parquet", ["bad", "good"], [1.0, math.nan], r"row 1: there is no label \(nan\)"),
        (".parquet", ["bad", "good"], [1, None], r"row 1: there is no label \(None\)"),
        (".jsonl", ["bad", "good"], [0, 0.37], r"label 0.37 is neither .* say task.kind=regression"),
        (".jsonl", ["bad", "good"], [0, "0.37"], r"label '0.37' is neither .* say task.kind=regression"),
        (".json", ["bad", "good"], [0, [1]], r"row 1: label \[1\] is neither"),
        (".csv", ["bad", "good"], ["1", "-1"], r"hidden test labels"),
        (".csv", ["bad", "good"], ["1", "nan"], r"label 'nan' is neither"),
    ],
)
def test_what_is_no_label_is_named(tmp_path: Path, ending: str, names: list[str], labels: list[Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ids(write(tmp_path, ending, labels), names)


@pytest.mark.parametrize("ending", FORMATS)
def test_scores_may_be_written_as_text(tmp_path: Path, ending: str) -> None:
    found = values.scores(read(write(tmp_path, ending, ["3.5", "-1", "2e0"]), ["label"]), "label")
    assert found.tolist() == [3.5, -1.0, 2.0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["3.5", "high"], "row 1: label 'high' is no finite number: correct or remove"),
        (["3.5", "3,5"], "label '3,5' is no finite number: write it with a decimal point"),
        ([1.5, math.inf], "label inf is no finite number"),
        ([True, False], "label True is no finite number"),
    ],
)
def test_what_is_no_score_is_named(tmp_path: Path, labels: list[Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        values.scores(read(write(tmp_path, ".parquet", labels), ["label"]), "label")


@pytest.mark.parametrize(
    ("text", "said"), [("a\0b", "holds a NUL character"), ("half \ud83d", r"half of a character \(\\ud83d")]
)
def test_texts_that_no_tokenizer_reads_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n' + json.dumps({"text": text}) + "\n")
    with pytest.raises(ValueError, match=rf"rows.jsonl, line 2, column text, row 1: the text .*{said}"):
        values.texts(read(path, ["text"]), "text")
