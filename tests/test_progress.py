"""What a run shows: rates and the rest count from where this process began, and answering is shown too."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kdexp.run import progress
from kdexp.train import evaluate
from kdexp.train.context import RunContext
from tests.toys import HEAD, examples, network

STUDENT = SimpleNamespace(last={"train/loss": 0.25})


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_continued_phase_is_timed_from_where_it_goes_on(clock, caplog):
    """900 of 1,000 updates were done on another day: the last 99 take what these take, not a tenth of it."""
    caplog.set_level(logging.INFO, "kdexp")
    shown = progress.Display("run", enabled=False)
    for step in range(901, 931):
        shown.show("distill", STUDENT, step, 1000, 8)
        clock.now += 1
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "distill 911/1000 8 ex/s  loss 0.2500  89 s left",
        "distill 921/1000 8 ex/s  loss 0.2500  79 s left",
    ]


def test_a_second_round_of_answers_begins_anew(clock, caplog):
    caplog.set_level(logging.INFO, "kdexp")
    shown = progress.Display("run", enabled=False)
    for seconds in (0.01, 4):
        for step in range(1, 5):
            shown.show("answering", None, step, 4, 64)
            clock.now += seconds
    assert [record.getMessage() for record in caplog.records] == ["answering 4/4 16 ex/s  0 s left"]


def test_students_of_a_cohort_share_a_step(clock, caplog):
    caplog.set_level(logging.INFO, "kdexp")
    shown = progress.Display("run", enabled=False)
    for step in range(1, 13):
        for _ in range(3):
            shown.show("distill", STUDENT, step, 12, 8)
        clock.now += 1
    assert caplog.records[0].getMessage() == "distill 11/12 24 ex/s  loss 0.2500  1 s left"


def test_whoever_asks_a_model_is_told_how_far_it_is(tmp_path):
    shown: list[tuple[str, int, int, int]] = []
    config: Any = None
    run = RunContext(
        config, torch.device("cpu"), "fp32", 1, tmp_path,
        show=lambda stage, student, step, total, n: shown.append((stage, step, total, n)),
    )  # fmt: skip
    evaluate.answers(network(1, 1), examples(200), HEAD, run)
    assert [step for _, step, _, _ in shown] == list(range(1, shown[0][2] + 1)) and len(shown) > 1
    assert sum(n for *_, n in shown) == 200 and {stage for stage, *_ in shown} == {"answering"}
