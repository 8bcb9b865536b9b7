"""``python -m kdexp keep STUDY``: the best run once more, to the bit, with the weights that the study did not keep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdexp.cli import commands
from kdexp.common import results
from tests.conftest import RunProgram
from tests.test_runs import toy


def finished(study: Path, name: str, heldout: float | None, validation: float, task: str = "toy") -> None:
    """Write the result of a run that has kept weights (its own folder)."""
    folder = study / name
    folder.mkdir(parents=True)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(
        "task: {_target_: kdexp.tasks.text.pydocs_area.PydocsArea, name: pydocs_area}\n"
    )
    scores = {"validation": {"accuracy": validation}} | (
        {"heldout": {"accuracy": heldout}} if heldout is not None else {}
    )
    results.write(
        folder,
        {
            "run": {"name": name, "folder": str(folder), "id": name},
            "task": {"metric": "accuracy"},
            "labels": {"task": task},
            "selection": "last" if heldout is None else "heldout",
            "scores": scores,
            "student": {"weights": str(folder), "size_bytes": 1e6},
            "cost": {"seconds": 1.0},
        },
    )


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "multirun" / "mine"


def kept(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert commands.main(["keep", "mine", "json=true", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_held_out_rows_choose_and_validation_is_told(study: Path, capsys: pytest.CaptureFixture[str]):
    finished(study, "a", 0.7, 0.9)
    finished(study, "b", 0.8, 0.6)
    assert kept(capsys) == {
        "run": str(study / "b"), "weights": "multirun/mine/b", "metric": "accuracy", "validation": 0.6,
    }  # fmt: skip


def test_without_held_out_rows_validation_chooses(study: Path, capsys: pytest.CaptureFixture[str]):
    finished(study, "a", None, 0.9)
    finished(study, "b", None, 0.6)
    assert kept(capsys)["validation"] == 0.9


def test_what_cannot_be_kept_is_one_sentence(study: Path, capsys: pytest.CaptureFixture[str]):
    assert commands.main(["keep", "mine"]) == 2
    assert "has no finished run with a score: run the study first." in capsys.readouterr().err
    finished(study, "a", 0.7, 0.9)
    finished(study, "b", 0.8, 0.6, "other")
    assert commands.main(["keep", "mine"]) == 2
    assert "say which by task=, one of other, toy." in capsys.readouterr().err
    assert commands.main(["keep", "mine", "task=rte"]) == 2
    assert "task=rte is not in multirun/mine: it has other, toy." in capsys.readouterr().err
    assert kept(capsys, "task=toy")["validation"] == 0.9


def test_a_student_whose_weights_were_not_kept(
    kdexp: RunProgram, tiny_bert_dir: Path, tiny_csv_task: Path, tmp_path: Path
):
    words = ["study=mine", "objective=finetune", "runtime.keep_weights=none", *toy(tiny_bert_dir, tiny_csv_task)]
    assert kdexp(words).returncode == 0
    (before,) = (json.loads(path.read_text()) for path in tmp_path.glob("multirun/mine/*/result.json"))
    assert before["student"]["weights"] is None
    done = kdexp(["keep", "mine"])
    assert done.returncode == 0 and "the best of 1 runs on held-out rows" in done.stdout, done.stderr
    (after,) = (json.loads(path.read_text()) for path in tmp_path.glob("multirun/mine_kept/*/result.json"))
    assert after["scores"] == before["scores"] and after["run"]["id"] == before["run"]["id"]
    folder = done.stdout.partition("model='")[2].partition("'")[0]
    assert (tmp_path / folder / "model.safetensors").is_file() and (tmp_path / folder / "tokenizer.json").is_file()
