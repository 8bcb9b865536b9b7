"""The statistics on studies with known effects: no more wrong verdicts than promised, the power that is promised,
intervals that hold the truth of their own question. A small version always, all designs in the slow suite."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from analysis import simulate
from analysis.power import Design, minimum_effect
from analysis.selection import expected_maximum

NEGLIGIBLE = "an effect of 0 called negligible (delta 1.5)"
QUESTIONS = ("these examples, new seeds", "these runs, new examples", "new seeds and new examples")


def at_most(share: float, repeats: int) -> float:
    """A bound that a true rate of ``share`` exceeds once in a thousand simulations."""
    return share + 3.1 * math.sqrt(share * (1 - share) / repeats)


def at_least(share: float, repeats: int) -> float:
    return 1 - at_most(1 - share, repeats)


def no_wrong_verdicts(seeds: int, tasks: int, repeats: int) -> dict[str, float]:
    rates = {}
    for scenario in simulate.WRONG:
        rates |= simulate.rates(scenario, seeds, tasks, repeats)
    for name, rate in rates.items():
        assert rate <= at_most(0.05, repeats), (name, seeds, tasks, rate)
    return rates


def as_documented(rates: dict[str, float], column: int) -> None:
    """docs/evidence.md prints these rates: what ``python -m analysis.simulate`` prints."""
    page = (Path(__file__).parents[2] / "docs" / "evidence.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(): cells[2:] for line in page.splitlines() if len(cells := line.split("|")) == 15}
    for name, rate in rates.items():
        assert rows[name][column].strip() == f"{100 * rate:.1f}", (name, column)


def detectable_effect_is_detected(seeds: int, tasks: int, repeats: int) -> None:
    """The design's own promise: power 0.8, a little less because suspicious contrasts leave the pool."""
    effect = minimum_effect(Design(seeds, (1.0,) * tasks, simulate.ARMS))
    rng = np.random.default_rng([seeds, tasks])
    estimates = [
        simulate._estimate(simulate.study(rng, seeds, tasks, shift={0: effect})) for _ in range(repeats)
    ]  # fmt: skip
    found = np.mean([one.p < 0.05 and one.value > 0 for one in estimates])
    assert at_least(0.7, repeats) <= found <= at_most(0.82, repeats), (seeds, tasks, found)


def intervals_hold(seeds: int, examples: int, repeats: int) -> dict[str, float]:
    found = simulate.rates(simulate.questions, seeds, examples, repeats)
    for name in (
        *QUESTIONS,
        "these runs, new examples, one seed",
        "McNemar's test, one seed, no difference: p >= 0.05",
    ):
        assert found[name] >= at_least(0.94, repeats), (name, seeds, examples, found[name])
    if examples > 100:  # on few examples and seeds, scores are so coarse that many pairs show no spread
        assert found[QUESTIONS[2]] <= 0.99
    return found


def test_a_small_design_is_right() -> None:
    no_wrong_verdicts(3, 2, 250)
    detectable_effect_is_detected(3, 2, 400)
    found = simulate.rates(simulate.effect, 5, 2, 250)
    assert found["an effect of 1.5 supported"] > 0.8 > found["the same by a paired t-test of these two arms"] - 0.1
    assert found["the same as one of four primary claims"] < found["an effect of 1.5 supported"]
    assert found[NEGLIGIBLE] > 0.5


def test_a_small_sample_is_covered() -> None:
    """Many seeds on few examples: here examples carry most of the doubt, and seeds alone would cover 87 %."""
    found = intervals_hold(10, 71, 400)
    assert found["instead: seeds alone, asked about both"] < 0.92
    assert found["instead: answers as if independent, asked about both"] < 0.9


def test_no_verdict_from_two_seeds() -> None:
    rates = {**simulate.rates(simulate.nothing, 2, 2, 50), **simulate.rates(simulate.effect, 2, 2, 50)}
    assert {rate for name, rate in rates.items() if "rows" not in name and "row in" not in name} == {0.0}


def test_ranges_call_noise_steadier_and_differences_do_not() -> None:
    """What the shipped claim once did: the range over three starts of a noisier method is larger without any effect."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        kd, attention = rng.normal(size=(7, 3, 4)), rng.normal(size=(2, 7, 3, 4)).mean(axis=0)
        ranges = np.ptp(kd, axis=1) - np.ptp(attention, axis=1)
        wrong += simulate.stats.mean_over_tasks(list(ranges)).low > 0
    assert wrong / 300 > 0.5
    assert simulate.rates(simulate.steadier, 4, 7, 250)["a steadier method, by its noise alone: decided"] <= 0.1


def test_the_expected_maximum_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    found = np.mean([expected_maximum(rng.normal(size=6), 3) for _ in range(4000)])
    assert found == pytest.approx(0.8463, abs=3.1 * 0.75 / math.sqrt(4000))  # of 3 standard normals: 3 / (2 sqrt(pi))


def test_the_command_prints_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["table=found", "repeats=2"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2 + 5 and lines[0].count("|") == 2 + len(simulate.DESIGNS)
    assert simulate.main(["repeats=many"]) == 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("design", range(len(simulate.DESIGNS)))
def test_verdicts_in_all_designs(design: int) -> None:
    seeds, tasks = simulate.DESIGNS[design]
    as_documented(no_wrong_verdicts(seeds, tasks, 2000), design)
    limits = {}
    for scenario in simulate.LIMITS:
        limits |= simulate.rates(scenario, seeds, tasks, 2000)
    assert max(limits.values()) <= at_most(0.1, 2000)
    found = simulate.rates(simulate.effect, seeds, tasks, 2000)
    as_documented(limits | found, design)
    if seeds > 2:
        detectable_effect_is_detected(seeds, tasks, 2000)
        assert found["an effect of 1.5 supported"] >= found["the same by a paired t-test of these two arms"] - 0.01
    if (seeds, tasks) in ((5, 2), (8, 2), (3, 7), (5, 7), (8, 7)):
        assert found["an effect of 1.5 supported"] > 0.8
        assert found["a gap of 3 supported"] > 0.9 and found[NEGLIGIBLE] > 0.6


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sample", range(len(simulate.SAMPLES)))
def test_intervals_in_all_samples(sample: int) -> None:
    as_documented(intervals_hold(*simulate.SAMPLES[sample], 2000), sample)
