"""The benchmark still runs and compares the same computation; what it measures is for people, never for a test."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from bench import report, tokens
from bench.speed import _compare
from tests.conftest import REPOSITORY, program_environment

OURS = ["textbook", "kdexp-live", "kdexp-cached", "gemm"]
PEERS = {"textbrewer": ["textbrewer"], "torchdistill": ["torchdistill", "torchvision"]}


def bench(*words):
    return subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=REPOSITORY, env=program_environment({}), capture_output=True, text=True, timeout=290,
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One tiny cell with everybody who can be had."""
    out = tmp_path_factory.mktemp("bench")
    there = [name for name, packages in PEERS.items() if all(map(find_spec, packages))]
    words = [
        *["--models", "tiny", "--tasks", "rte", "--objectives", "att_kl", "--updates", "2", "--repeats", "1"],
        *["--contestants", *OURS, *there, "--out", str(out)],
    ]
    done = bench(*words)
    assert done.returncode == 0, done.stderr
    return out, words, there


@pytest.mark.slow
def test_contestants_compute_the_same_and_are_timed(measured):
    out, _, there = measured
    (result,) = json.loads((out / "speed.json").read_text())
    who = result["contestants"]
    assert set(who) == {*OURS, *there}
    losses = [who[name]["loss"] for name in who if name != "gemm"]
    assert losses[0] > 0 and losses == pytest.approx([losses[0]] * len(losses), rel=1e-4)
    for name, one in who.items():
        assert "differs" not in one and "error" not in one, (name, one)
        assert len(one["wall"]) == len(one["cpu"]) == 1 and one["wall"][0] > 0 and one["flops"] > 0
    assert 1 - result["tokens"] / who["textbook"]["positions"] > 1 - result["tokens"] / who["kdexp-live"]["positions"]
    assert who["kdexp-cached"]["flops"] < who["kdexp-live"]["flops"]  # no teacher is run
    assert (out / "speed.png").stat().st_size > 1000


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again(measured):
    out, words, _ = measured
    (cell,) = (out / "cells").glob("*.json")
    before = cell.stat().st_mtime_ns
    done = bench(*words)
    assert done.returncode == 0, done.stderr
    assert "loading" not in done.stderr and cell.stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_report_writes_the_table_into_the_page(measured, tmp_path):
    out, _, _ = measured
    page = tmp_path / "performance.md"
    page.write_text((REPOSITORY / "docs" / "performance.md").read_text())
    assert report.main(["--out", str(out), "--page", str(page)]) == 0
    text = page.read_text()
    table = text.partition("<!-- bench speed -->")[2].partition("<!-- end of bench speed -->")[0]
    assert (
        "Not measured yet" not in table
        and "| tiny | 4 | att_kl |" in table
        and "python -m bench --models tiny" in table
    )
    once = text
    report.main(["--out", str(out), "--page", str(page)])
    assert page.read_text() == once
    page.write_text("# No place\n")
    with pytest.raises(ValueError, match="no place for speed"):
        report.main(["--out", str(out), "--page", str(page)])


def test_another_computation_is_named():
    out = {
        "textbook": {"loss": 1.0},
        "kdexp-live": {"loss": 1.00001},
        "torchdistill": {"loss": 1.01},
        "gemm": {"loss": None},
    }
    _compare(out)
    assert [name for name, one in out.items() if "differs" in one] == ["torchdistill"]
    assert "1.01" in out["torchdistill"]["differs"]


def test_cells_of_one_shape_are_told_apart_by_what_the_others_met():
    """Shuffled and in kdexp's batches are two measurements, and of two lines alike nobody knows which is which."""
    one = {"wall": [0.5, 0.5], "cpu": [0.5, 0.5], "positions": 40, "memory_mb": 1.0}
    machine = {"hardware": {"cpu": "here"}, "versions": {}, "date": "2026-01-01"}
    lines = [
        line
        for order in ("shuffled", "bucketed")
        for line in report.speed([
            {
                "cell": {"task": "sst2", "model": "tiny", "batch": 8, "objective": "kd", "order": order,
                         "threads": 1, "device": "cpu"},
                "contestants": {"textbook": one, "kdexp-cached": one}, "tokens": 20, "examples": 2,
                "texts": "real", "machine": machine, "command": "python -m bench",
            }
        ])
    ]  # fmt: skip
    assert sum("| sst2 (10) | tiny | 8 | kd |" in line for line in lines) == 1
    assert sum("| sst2 (10) | tiny | 8 b | kd |" in line for line in lines) == 1
    assert sum("| sst2 kd tiny, 8 b | kdexp-cached |" in line for line in lines) == 1
    assert sum("b: the other loops had kdexp's own batches" in line for line in lines) == 1


def test_nothing_to_report_is_said(tmp_path, capsys):
    assert report.main(["--out", str(tmp_path)]) == 1
    assert "python -m bench" in capsys.readouterr().err


def test_the_devices_benchmark_compares_three_ways():
    words = ["layers=2:1", "width=64", "length=16", "batch=4", "vocabulary=100", "steps=1"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", *words],
        cwd=REPOSITORY, env=program_environment({}), capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[3:]]
    assert [row[0] for row in rows] == ["textbook", "live", "cached", "GEMM"]
    assert all(float(row[1]) > 0 for row in rows)


TINY = ["--teacher", "4", "--student", "2", "--width", "16", "--heads", "2", "--vocabulary", "200", "--length", "16"]


@pytest.mark.parametrize("objective", ["kd", "att_mse"])
def test_what_is_needed_is_less_work_for_the_same_loss(objective):
    from torch.utils.flop_counter import FlopCounterMode

    asked = tokens.parser().parse_args([*TINY, "--batch", "4"])
    work, losses = {}, []
    for name, spared in tokens.WAYS.items():
        way = tokens._way(objective, asked, *spared)
        losses.append(way.loss)
        with FlopCounterMode(display=False) as counter:
            way.update(0)
        work[name] = counter.get_total_flops()
    assert losses[0] > 0 and losses == pytest.approx([losses[0]] * 4, rel=1e-5)
    assert work["needed"] < work["head everywhere"] <= work["both"]
    above = work["all layers"] > work["needed"]
    assert above == (objective == "att_mse"), "answers hang on all layers"


def test_tokens_a_second_become_a_table(tmp_path, capsys):
    words = ["--objectives", "mlm", "minilm_v2", "--batch", "2", "--updates", "1", "--out", str(tmp_path)]
    assert tokens.main([*TINY, *words]) == 0
    rows = json.loads((tmp_path / "tokens.json").read_text())["rows"]
    assert [row["objective"] for row in rows] == ["mlm", "minilm_v2"]
    assert all(min(row["tokens_per_s"].values()) > 0 and set(row["loss"]) == set(tokens.WAYS) for row in rows)
    page = tmp_path / "performance.md"
    page.write_text((REPOSITORY / "docs" / "performance.md").read_text())
    assert report.main(["--out", str(tmp_path), "--page", str(page)]) == 0
    table = page.read_text().partition("<!-- bench tokens -->")[2].partition("<!-- end of bench tokens -->")[0]
    assert "Not measured yet" not in table and "| mlm |" in table and "python -m bench tokens --teacher 4" in table
    with pytest.raises(SystemExit):
        tokens.main([*TINY, "--student", "5"])
    assert "--student is at most --teacher" in capsys.readouterr().err
