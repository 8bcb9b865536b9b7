"""Images in a report: those that the teacher got right and the student wrong, from the files that runs leave behind."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from analysis import pictures, report
from analysis.collect import collect
from tests.analysis.synthetic import make_result, write_points, write_run

NAMES = ["cat", "<b>dog</b>", "ship"]
LABELS = np.array([0, 1, 2, 0, 1, 2], dtype=np.int64)


def answers(folder: Path, said: list[int], sure: float | list[float] = 1.0) -> None:
    logits = np.zeros((len(said), 3), dtype=np.float32)
    logits[np.arange(len(said)), said] = sure
    (folder / "predictions").mkdir(parents=True)
    kept = {"logits": logits, "target.label": LABELS, "ids": np.arange(len(said), dtype=np.int32)}
    save_file(kept, folder / "predictions" / "validation.safetensors")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """One run: of six images the teacher gets the last wrong, the student numbers 1, 3 and 5 as well as 4."""
    pixels = tmp_path / "store" / "cache" / "images" / "abc"
    pixels.mkdir(parents=True)
    np.save(pixels / "pixels.npy", np.stack([np.full((8, 8, 3), 40 * i, dtype=np.uint8) for i in range(6)]))
    answers(tmp_path / "store" / "teacher-toys", [0, 1, 2, 0, 1, 0], [1, 2, 1, 3, 5, 1])
    result = make_result("toys", "toys", "kd", "random", 1)
    result["task"] |= {"pixels": {"train": None, "validation": str(pixels)}}
    result["science"]["task"]["label_names"] = NAMES
    write_run(tmp_path, result)
    write_points(tmp_path, "toys", [result])
    answers(tmp_path / "toys" / result["run"]["name"], [0, 0, 2, 2, 0, 2])
    return tmp_path


def test_the_surest_come_first(study):
    text = pictures.section(collect("toys", study, "folders"))
    assert "of 6 images 3 that the teacher got right, and 1 the other way round" in text
    shown = re.findall(r'base64,([^"]+)" alt="([^"]+)".*?<em>([^<]+)</em>', text)
    assert [(label, answer) for _, label, answer in shown] == [
        ("&lt;b&gt;dog&lt;/b&gt;", "cat"), ("cat", "ship"), ("&lt;b&gt;dog&lt;/b&gt;", "cat"),
    ]  # fmt: skip
    colours = [np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))[4, 4, 0] for code, _, _ in shown]
    assert np.allclose(colours, [160, 120, 40], atol=3)  # images 4, 3 and 1


def test_the_page_holds_them_and_loads_nothing(study):
    text = report.page(collect("toys", study, "folders"))
    assert '<a href="#pictures">Images</a>' in text and text.count('<section id="pictures">') == 1
    assert not re.search(r'src="(?!data:)', text) and "<b>dog</b>" not in text


def test_what_is_not_here_is_said(study):
    (study / "store" / "cache" / "images" / "abc" / "pixels.npy").unlink()
    assert "its images cannot be shown:" in pictures.section(collect("toys", study, "folders"))


def test_texts_have_none(tmp_path):
    result = make_result("toys", "rte", "kd", "random", 1)
    write_run(tmp_path, result)
    write_points(tmp_path, "toys", [result])
    assert pictures.section(collect("toys", tmp_path, "folders")) == ""
    assert json.loads(next(tmp_path.glob("toys/*/result.json")).read_text())["task"].get("pixels") is None
