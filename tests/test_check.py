"""The command that recomputes reference values."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from kdexp.cli import commands, vectors

GOOD = {
    "id": "good",
    "function": "sps_plan",
    "inputs": {},
    "params": {"layers": 1},
    "expected": [[0, False], [0, True]],
    "tolerance": 0,
}


@pytest.fixture
def write(tmp_path):
    def write(*vectors, form="kdexp-vectors-1"):
        path = tmp_path / "vectors.json"
        path.write_text(json.dumps({"format": form, "vectors": vectors}))
        return str(path)

    return write


def test_closing_line_and_status(write, capsys):
    assert commands.main(["vectors", write(GOOD)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "good  expected [[0, False], [0, True]]  got [[0, False], [0, True]]  pass"
    assert lines[-1] == "1 passed, 0 failed"


def test_a_wrong_value_fails(write, capsys):
    wrong = GOOD | {"id": "wrong", "expected": [[0, False], [0, False]]}
    assert commands.main(["vectors", write(GOOD, wrong)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("wrong")
    assert lines[1].endswith("FAIL")
    assert lines[-1] == "1 passed, 1 failed"


def test_an_unknown_function_fails(write, capsys):
    assert commands.main(["vectors", write(GOOD | {"function": "telepathy"})]) == 1
    assert "unknown function telepathy" in capsys.readouterr().out


def test_an_error_is_a_failure_of_its_vector_only(write, capsys):
    assert commands.main(["vectors", write(GOOD | {"params": {"layers": 0}}, GOOD)]) == 1
    out = capsys.readouterr().out
    assert "ValueError: parameter sharing needs at least 1 own layer" in out
    assert out.endswith("1 passed, 1 failed\n")


@pytest.mark.parametrize("content", ['{"format": "other", "vectors": []}', "no json", "[]"])
def test_a_foreign_file_is_refused(content, tmp_path, capsys):
    path = tmp_path / "file.json"
    path.write_text(content)
    assert commands.main(["vectors", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("got", "expected", "tolerance", "same"),
    [
        (1.0, 1.0 + 1e-7, 1e-6, True),
        (1.0, 1.1, 1e-6, False),
        (math.nan, 1.0, 1e-6, False),
        (math.nan, math.nan, 1e-6, False),
        ([1, 2], [1, 2], 0, True),
        ([1, 2], [1, 2, 3], 0, False),
        (1, [1], 0, False),
        ([[0, True]], [[0, 1]], 0, False),
        ([], [], 0, True),
    ],
)
def test_agreement(got, expected, tolerance, same):
    assert vectors.agree(got, expected, tolerance) is same


def test_inputs_follow_their_rules():
    sine = vectors.tensor({"kind": "sin", "shape": [2, 2], "phase": 0.5, "scale": 2.0})
    assert sine[1, 0].item() == pytest.approx(2 * math.sin(1 + 0.7 * 2 + 0.5))
    hot = vectors.tensor({"kind": "onehot", "shape": [2, 3], "index": [2, 0], "scale": -1.0})
    assert hot.tolist() == [[0, 0, -1], [-1, 0, 0]]
    assert vectors.tensor({"kind": "literal", "value": [1, 0]}).tolist() == [1, 0]
    with pytest.raises(ValueError, match="cosine"):
        vectors.tensor({"kind": "cosine"})


def test_the_command(write):
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "kdexp.check", write(GOOD)], capture_output=True, text=True, cwd=root, check=False
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 passed, 0 failed")
