"""The smallest run of the whole program: a toy teacher, 64 sentences, a few updates."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Distil = Callable[..., dict[str, Any]]


@pytest.fixture
def arguments(tiny_bert_dir: Path, tiny_csv_task: Path) -> list[str]:
    """Command-line words of a run that takes seconds."""
    return [
        "teacher=local", f"teacher.source=path:{tiny_bert_dir}", "teacher.floor_margin=-1", "teacher.recipe.epochs=2",
        "task=local", f"task.folder={tiny_csv_task}", "task.label_names=[bad,good]", "student=l2", "study=toy",
        "recipe.epochs=1", "recipe.batch_size=16", "teacher.recipe.batch_size=16", "recipe.max_length=24",
        "teacher.recipe.max_length=24", "runtime.compile=false", "runtime.device=cpu", "runtime.dtype=fp32",
        "runtime.progress=false", "runtime.log_every=2", "tracking=off",
    ]  # fmt: skip


@pytest.fixture
def distil(kdexp: Any, arguments: list[str], tmp_path: Path) -> Distil:
    """``distil(*words)`` runs the program through its public entry and returns the result of its newest run."""

    def run(*words: str, given: Sequence[str] = ()) -> dict[str, Any]:
        done = kdexp([*(given or arguments), *words])
        assert done.returncode == 0, done.stdout + done.stderr
        results = sorted(tmp_path.glob("multirun/*/*/result.json"), key=lambda p: p.stat().st_mtime_ns)
        return json.loads(results[-1].read_text())

    return run


@pytest.fixture
def store(tmp_path: Path) -> Callable[[], dict[str, list[dict[str, Any]]]]:
    """``store()`` returns what the store's finished stages noted, by the stage's name."""

    def read() -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for path in sorted((tmp_path / "multirun" / ".store").glob("*/meta.json")):
            meta = json.loads(path.read_text())
            found.setdefault(meta["name"], []).append(meta)
        return found

    return read
