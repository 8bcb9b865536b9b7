"""The embedded tasks: real, balanced, without leaks, the same every time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kdexp.tasks.text import pydocs
from kdexp.tasks.text.embedded import EmbeddedTask
from kdexp.tasks.text.pydocs_area import LABELS, PydocsArea
from kdexp.tasks.text.pydocs_kind import PydocsKind
from kdexp.tasks.text.pydocs_match import PydocsMatch

TASKS = [PydocsArea, PydocsKind, PydocsMatch]


@pytest.mark.parametrize("cls", TASKS)
def test_sizes_balance_and_no_leak(cls: type[EmbeddedTask]) -> None:
    task = cls()
    assert task.problems(None) == []
    rows = task.rows(None, None)
    train, validation = rows["train"], rows["validation"]
    assert 1500 <= len(train) <= 2500
    assert 400 <= len(validation) <= 800
    counts = np.bincount(train.labels, minlength=task.head.width)
    assert counts.min() > 0.5 * counts.max()
    for ours, theirs in ((train.first, validation.first), (train.second, validation.second)):
        if ours and theirs:
            assert not {pydocs.normal(t) for t in ours} & {pydocs.normal(t) for t in theirs}


def test_modules_are_on_one_side_only() -> None:
    rows = PydocsMatch().rows(None, None)
    home = {}
    for record in pydocs.corpus(pydocs.library()):
        if record.kind == "function":
            home.setdefault(f"def {record.name}({record.parameters})"[:140], set()).add(record.module)
    sides = [{next(iter(home[s])) for s in r.second or [] if len(home[s]) == 1} for r in rows.values()]
    assert all(len(side) > 20 for side in sides)
    assert not sides[0] & sides[1]


def test_match_cannot_be_told_from_one_side() -> None:
    for rows in PydocsMatch().rows(None, None).values():
        for column in (rows.first, rows.second):
            seen: dict[str, list[int]] = {}
            for text, label in zip(column or [], rows.labels, strict=True):
                seen.setdefault(text, []).append(int(label))
            assert all(sorted(labels) == [0, 1] for labels in seen.values())


def test_match_hides_the_function_in_its_summary() -> None:
    rows = PydocsMatch().rows(None, None)["train"]
    for summary, signature, label in zip(rows.first, rows.second or [], rows.labels, strict=True):
        name = signature.removeprefix("def ").partition("(")[0]
        if label:
            words = summary.lower().replace("(", " ").replace(".", " ").replace(",", " ").split()
            assert name.lower() not in words


def test_same_rows_again_with_and_without_cache(tmp_path: Path) -> None:
    task = PydocsArea()
    fresh = task.fingerprint(None)
    pydocs.corpus.cache_clear()
    assert task.fingerprint(None, tmp_path) == fresh
    assert PydocsArea().fingerprint(None, tmp_path) == fresh
    kept = task.splits(None, 0.1, cache=tmp_path)
    assert kept["train"].first == task.splits(None, 0.1)["train"].first
    assert PydocsMatch().fingerprint(None, tmp_path) != fresh


def test_limit_is_stratified_and_changes_the_hash() -> None:
    small = PydocsArea(limit_train=80)
    rows = small.splits(None, 0.1)
    assert (len(rows["train"]), len(rows["heldout"])) == (72, 8)
    assert np.bincount(np.concatenate([rows["train"].labels, rows["heldout"].labels])).min() >= 5
    assert small.fingerprint(None) != PydocsArea().fingerprint(None)


def test_majority_is_low() -> None:
    for cls, most in ((PydocsArea, 0.16), (PydocsMatch, 0.5)):
        rows = cls().rows(None, None)
        train, validation = ({"label": rows[name].labels} for name in ("train", "validation"))
        assert cls().trivial(train, validation)["accuracy"] <= most


def test_small_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extraction on files written by hand: kinds, names, skipped folders and broken files; nothing is imported."""
    (tmp_path / "json" / "tests").mkdir(parents=True)
    (tmp_path / "json" / "__init__.py").write_text('"""About JSON."""\nraise SystemExit\n')
    (tmp_path / "json" / "tests" / "t.py").write_text('"""A test."""\n')
    (tmp_path / "csv.py").write_text(
        'class R:\n    """A reader."""\n    def row(self, n: int = 1) -> str:\n        """Next row."""\n'
        "    def none(self): pass\n"
    )
    (tmp_path / "queue.py").write_text("def broken(:\n")
    (tmp_path / "private.py").write_text('"""Not in any area."""\n')
    found = [(r.area, r.module, r.kind, r.owner, r.name, r.parameters) for r in pydocs.corpus(tmp_path)]
    assert found == [
        ("formats", "csv", "class", "", "R", ""),
        ("formats", "csv", "function", "R", "row", "n: int=1"),
        ("formats", "json", "module", "", "", ""),
    ]
    monkeypatch.setattr(pydocs, "library", lambda: tmp_path)
    [sentence] = PydocsArea().problems(None)
    assert "has only 3 of them" in sentence


def test_a_library_is_listed_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "csv.py").write_text('"""Rows."""\n')
    listed = pydocs.sources(tmp_path)
    monkeypatch.setattr(Path, "rglob", lambda *ignored: pytest.fail("the folders are listed again"))
    assert pydocs.sources(tmp_path) is listed and [module for _, module, _ in listed] == ["csv"]


def test_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="pydocs_area has the classes"):
        PydocsArea(label_names=LABELS[::-1])


@pytest.mark.parametrize(
    ("doc", "limit", "expected"),
    [
        ("Return the sum of all values.\n\n>>> f(1)\n1", 100, ["Return the sum of all values."]),
        ("Too short.", 100, []),
        ("- a list of several plain words here", 100, []),
        ("First sentence has quite some words. Second one too.", 40, ["First sentence has quite some words."]),
        ("One very long sentence without any end that goes on", 20, []),
        ("Arguments that are understood by this:", 100, []),
    ],
)
def test_prose(doc: str, limit: int, expected: list[str]) -> None:
    assert pydocs.prose(doc, limit) == expected


def test_same_rows_in_another_process() -> None:
    code = (
        "from kdexp.tasks.text.pydocs_area import PydocsArea; from kdexp.tasks.text.pydocs_kind import PydocsKind; "
        "from kdexp.tasks.text.pydocs_match import PydocsMatch; "
        "print(*(cls().fingerprint(None) for cls in (PydocsArea, PydocsKind, PydocsMatch)))"
    )
    here = [cls().fingerprint(None) for cls in TASKS]
    environment = os.environ | {"PYTHONHASHSEED": "12345", "LC_ALL": "C"}
    repository = Path(__file__).resolve().parents[2]
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, env=environment, check=True
    )
    assert out.stdout.split() == here
