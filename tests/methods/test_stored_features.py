"""Whole runs whose teacher is looked up: as those whose teacher is run, stored once for all that may share it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kdexp.cli import commands
from kdexp.common import machine
from kdexp.config.schema import Config
from kdexp.methods import base as methods
from kdexp.run import spec, stages
from kdexp.store import features
from kdexp.store.replicated import Replicated
from kdexp.store.store import Store
from kdexp.train import forecast
from kdexp.train.context import RunContext


def carry_out(config: Config, root: Path) -> tuple[dict[str, torch.Tensor], RunContext, list[str]]:
    """Carry a plan out in ``root``; its student's weights, what was decided, and the log."""
    from safetensors.torch import load_file

    lines: list[str] = []
    run = RunContext(config, torch.device("cpu"), "fp32", 1, root / "cache", say=lines.append)
    planned = methods.stages(config, spec.facts(config))
    stages.build(planned, Replicated(Store(root)), run, record=False)
    return load_file(root / planned[-1].key / "model.safetensors"), run, lines


def make(compose: Any, words: list[str], *more: str) -> Config:
    return spec.make(compose(*words, *more)).config


def cached(run: RunContext) -> dict[str, bool]:
    return {stage: fact["cached"] for stage, fact in run.facts["teacher"].items()}


PLANS = {
    "pkd": (["objective=pkd"], {"distill.joint": True}),
    "two phases": (["objective=tinybert"], {"distill.intermediate": True, "distill.prediction": True}),
    "as coded": (
        ["objective=hid_seq", "objective.intermediate.hid_seq.variant=as_coded"],
        {"distill.intermediate": False, "distill.prediction": True},
    ),
    "other length": (["objective=kd", "recipe.max_length=12"], {"distill.prediction": True}),
    "pretrained": (
        ["objective=ernie_tiny"],
        {f"ernie_tiny.{n}": True for n in ("general", "general_enhanced", "task_adaptive", "task_specific")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_a_run_learns_what_it_learns_from_a_live_teacher(name, compose, arguments, tmp_path):
    """Equal but for rounding in fp32 (a few updates; tolerance 1e-4), and dry=true tells the size of what is stored."""
    words, expected = PLANS[name]
    off = make(compose, arguments, *words, "runtime.teacher_cache=off")
    live, run, _ = carry_out(off, tmp_path / "live")
    assert cached(run) == dict.fromkeys(expected, False)
    assert not features.everything(features.folder(tmp_path / "live"))

    config = make(compose, arguments, *words)
    store, teacher = tmp_path / "stored", methods.stages(config, spec.facts(config))[0]
    shutil.copytree(tmp_path / "live" / teacher.key, store / teacher.key)
    stored, run, lines = carry_out(config, store)
    assert cached(run) == expected, lines
    for key in live:
        torch.testing.assert_close(live[key], stored[key], rtol=1e-4, atol=1e-4)
    point = spec.make(compose(*arguments, *words))
    said = forecast.lines([(point.config, point.outline)])
    size = features.size(features.folder(store))
    assert machine.amount(size) in said[0] if size else "nothing would be stored" in said[0], said
    assert sum(" it on every batch" in line for line in said) == int(False in expected.values())


def test_many_stages_of_one_reason_are_counted_not_listed():
    line = forecast.Line()
    line.live = {f"pro_kd.part{n}.checkpoint{n}": "batches differ" for n in range(1, 5)} | {
        "distill.prediction": "batches differ"
    }
    assert forecast._sentence(line).endswith(
        "; 4 stages of pro_kd, distill.prediction run it on every batch: batches differ"
    )
    line.live = {"distill.prediction": "batches differ"}
    assert forecast._sentence(line).endswith("; distill.prediction runs it on every batch: batches differ")


def test_seeds_and_objectives_share_what_is_stored(compose, arguments, tmp_path):
    asked = []
    same = ["seed=1"], ["seed=2"], ["seed=1", "init=random"], ["seed=1", "recipe.batch_size=8", "recipe.dropout=0"]
    for words in (*same, ["recipe.examples=20"], ["recipe.max_length=10"], ["teacher.seed=2"], ["data.heldout=0.2"]):
        _, _, lines = carry_out(make(compose, arguments, "objective=pkd", *words), tmp_path)
        asked.append([line.split(" examples")[0].rpartition(" ")[2] for line in lines if "storing what" in line])
    assert asked == [["58"], [], [], [], ["20"], ["58"], ["58"], ["51"]], "what differs is stored for itself"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["teacher.evaluation_mode=false"], "its dropout is on"),
        (["runtime.teacher_cache=1KB"], "runtime.teacher_cache=1KB allows 1.0 KB"),
    ],
)
def test_a_teacher_that_is_run_says_why_once(words, why, compose, arguments, tmp_path):
    _, run, lines = carry_out(make(compose, arguments, "objective=pkd", *words), tmp_path)
    assert cached(run) == {"distill.joint": False}
    assert [why in line for line in lines if line.startswith("teacher of")] == [True], lines


def test_the_store_knows_what_can_be_made_again(compose, arguments, tmp_path, capsys):
    config = make(compose, arguments, "objective=pkd")
    carry_out(config, tmp_path)
    size, store = features.size(features.folder(tmp_path)) / 1e6, f"store={tmp_path}"
    assert commands.main(["store", "list", store]) == 0
    assert f"features of teachers of {size:.1f} MB (gc cache drops them)" in capsys.readouterr().out
    assert commands.main(["store", "gc", store]) == 0 and features.size(features.folder(tmp_path)) > 0
    used = features.everything(features.folder(tmp_path))[0]
    with used.hold():
        assert commands.main(["store", "gc", "cache", store]) == 0
        assert "kept: 1 features that a process reads or writes" in capsys.readouterr().out
    assert commands.main(["store", "gc", "all", store]) == 0
    assert not features.everything(features.folder(tmp_path)) and features.size(features.folder(tmp_path)) == 0


@pytest.mark.parametrize(
    "value", ["4", "4gb", "0GB", "0.0MB", "GB", "-1GB", "1 GB", "1e3GB", "nan", "true", "null", "4GiB"]
)
def test_what_is_no_size_is_refused(value, compose, arguments):
    _, problems = spec.prepare(compose(*arguments, f"runtime.teacher_cache={value}"))
    shown = {"true": "True", "null": "None"}.get(value, value)
    assert problems == [
        f"runtime.teacher_cache={shown} is unknown; choose auto, off, or a size with its unit, such as 500MB or 4GB."
    ]


def test_a_size_for_a_teacher_with_dropout_is_refused(compose, arguments):
    words = ["objective=pkd", "teacher.evaluation_mode=false", "runtime.teacher_cache=4GB"]
    _, problems = spec.prepare(compose(*arguments, *words))
    assert len(problems) == 1 and "runtime.teacher_cache=4GB has no effect with teacher.evaluation_mode" in problems[0]


@pytest.mark.parametrize(("value", "kept"), [("off", "off"), ("4GB", "4GB"), ("0.5TB", "0.5TB"), ("false", "off")])
def test_sizes_and_off_are_taken(value, kept, compose, arguments):
    assert make(compose, arguments, f"runtime.teacher_cache={value}").runtime.teacher_cache == kept


def test_the_setting_is_no_part_of_what_a_run_is(compose, arguments):
    points = [spec.make(compose(*arguments, f"runtime.teacher_cache={value}")) for value in ("auto", "off", "4GB")]
    assert len({point.id for point in points}) == 1
    assert len({json.dumps([stage.key for stage in point.outline]) for point in points}) == 1
