"""Raw text in long runs: memory that does not grow, whatever the size of the corpus, and a kill in mid-stream."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import program_environment, sentence
from tests.methods.test_agnostic import tiny_mlm_dir  # noqa: F401
from tests.methods.test_causal import tiny_gpt2_dir  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SMALL, LARGE = 1_000, 40_000
"""Documents of a corpus: 0.4 and 16 MB."""
GROWTH = 24
"""Megabytes that noise of the allocator explains; the large corpus has several times as many as token ids."""


def corpus(folder: Path, documents: int) -> Path:
    """Write a folder of raw text, in Parquet, which is read piece by piece."""
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir()
    texts = [". ".join([str(row), *(sentence(7 * row + k, k % 2) for k in range(8))]) for row in range(documents)]
    parquet.write_table(pa.table({"text": texts}), folder / "train.parquet", row_group_size=512)
    return folder


def words(model: Path, text: Path, task: str) -> list[str]:
    """Command-line words of a run on raw text."""
    return [
        f"task={task}", f"task.folder={text}", "task.files={train: train.parquet}", "task.limit_validation=16",
        "data.heldout=0.01", "teacher=local", f"teacher.source=path:{model}", "teacher.recipe.max_length=24",
        "student=l2", "init=first", "init.source=pretrained", "init.pooler=false", "study=raw", "objective=agnostic_kd",
        "recipe=agnostic", "recipe.batch_size=8", "recipe.accumulation=2", "recipe.max_length=24",
        "runtime.compile=false", "runtime.device=cpu", "runtime.dtype=fp32", "runtime.progress=false", "tracking=off",
    ]  # fmt: skip


def private_mb(pid: int) -> float:
    """Memory of a process that is its own: not pages of files, which the kernel takes back."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def measured(folder: Path, arguments: list[str]) -> list[tuple[int, float]]:
    """Carry a run out; returns (updates that are done, megabytes) again and again."""
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "kdexp", *arguments], cwd=folder, env=program_environment({}),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    seen = []
    while process.poll() is None:
        time.sleep(0.1)
        logs = [*folder.glob("multirun/raw/*/metrics.jsonl")]
        step = logs[0].read_text().count("\n") if logs else 0
        try:
            seen.append((step, private_mb(process.pid)))
        except (OSError, StopIteration):
            break
    error = process.communicate()[1]
    assert process.returncode == 0, error
    return seen


def test_memory_is_flat_over_a_run_and_over_the_size_of_a_corpus(tmp_path, tiny_mlm_dir):  # noqa: F811
    peaks = {}
    for size in (SMALL, LARGE):
        text = corpus(tmp_path / f"text{size}", size)
        more = ["recipe.steps=1200", "runtime.log_every=1"]
        seen = measured(tmp_path / str(size), [*words(tiny_mlm_dir, text, "mlm"), *more])
        peaks[size] = max(memory for _, memory in seen)
        training = [memory for step, memory in seen if step]
        assert len(training) > 20
        third = len(training) // 3
        early, late = statistics.median(training[third : 2 * third]), statistics.median(training[2 * third :])
        print(f"{size} documents: {early:.0f} MB, then {late:.0f} MB, at most {peaks[size]:.0f} MB")
        assert late - early < GROWTH
    tokens = json.loads(next((tmp_path / str(LARGE)).glob("multirun/raw/*/result.json")).read_text())["task"]["tokens"]
    assert tokens["train"] * 8 / 2**20 > 2 * GROWTH, "as numbers of Python or of a batch they would be seen"
    assert peaks[LARGE] - peaks[SMALL] < 3 * GROWTH  # what the tokenizer reads at once


@pytest.mark.parametrize("task", ["mlm", "clm"])
def test_a_kill_in_mid_stream_is_not_seen_in_the_weights(tmp_path, tiny_mlm_dir, tiny_gpt2_dir, task):  # noqa: F811
    text = corpus(tmp_path / "text", SMALL)
    model = {"mlm": tiny_mlm_dir, "clm": tiny_gpt2_dir}[task]
    more = [*words(model, text, task), "recipe.steps=60", "runtime.checkpoint_s=0"]

    def start(folder: Path) -> subprocess.Popen:
        folder.mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "kdexp", *more], cwd=folder, env=program_environment({}),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    calm, rough, kills = start(tmp_path / "calm"), tmp_path / "rough", 0
    assert calm.wait(600) == 0
    while True:
        process = start(rough)
        while process.poll() is None:
            time.sleep(0.01)
            states = [*rough.glob("multirun/.store/**/checkpoint/state.json")]
            done = json.loads(states[0].read_text())["progress"]["step"] if states else 0
            if kills < 3 and 12 * (kills + 1) <= done < 55:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
        if process.wait(600) == 0:
            break
    assert kills == 3
    one, two = (load_file(next(f.glob("multirun/.store/*/model.safetensors"))) for f in (tmp_path / "calm", rough))
    assert set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)
