"""Three questions, three intervals: by hand, against scipy, and each wide where its source of variation is planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from analysis import examples
from analysis.crossed import components, mcnemar, new_examples, new_seeds, new_seeds_and_examples
from analysis.selection import expected_maximum

RNG = np.random.default_rng(0)


def differences(
    seeds: int, count: int, *, of_seed: float = 0.0, of_example: float = 0.0, rest: float = 1.0
) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (
        rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_example, (1, count)) + rng.normal(0, rest, (seeds, count))
    )


def test_components_are_those_of_the_analysis_of_variance() -> None:
    """Against sums of squares by definition, and against what was planted (standard deviations 2, 3 and 1)."""
    d = differences(4, 50, of_seed=2, of_example=3)
    found = components(d)
    grand, rows, columns = d.mean(), d.mean(1), d.mean(0)
    ms_seed = 50 * ((rows - grand) ** 2).sum() / 3
    ms_example = 4 * ((columns - grand) ** 2).sum() / 49
    ms_rest = ((d - rows[:, None] - columns + grand) ** 2).sum() / (3 * 49)
    assert (found.seed, found.example, found.rest) == pytest.approx(
        ((ms_seed - ms_rest) / 50, (ms_example - ms_rest) / 4, ms_rest)
    )
    large = components(differences(60, 2000, of_seed=2, of_example=3))
    assert (large.seed, large.example, large.rest) == pytest.approx((4, 9, 1), rel=0.25)
    one = components(d[:1])
    assert math.isnan(one.seed) and one.rest == pytest.approx(d[0].var(ddof=1))


def test_new_seeds_and_new_examples_are_t_tests_of_the_means() -> None:
    d = differences(5, 40, of_seed=1, of_example=1)
    for found, values in ((new_seeds([d]), d.mean(1)), (new_examples([d]), d.mean(0))):
        known = sps.ttest_1samp(values, 0)
        assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval()))
        assert found.p == pytest.approx(known.pvalue)


def test_the_third_interval_is_the_first_widened_by_examples() -> None:
    d = differences(3, 60, of_seed=0.5, of_example=2)
    first, both = new_seeds([d]), new_seeds_and_examples(new_seeds([d]), [d])
    added = components(d).example / 60
    half = math.hypot(first.high - first.value, float(sps.t.ppf(0.975, 59)) * math.sqrt(added))
    assert (both.low, both.high) == pytest.approx((both.value - half, both.value + half))
    assert both.error == pytest.approx(math.hypot(first.error, math.sqrt(added)))
    # its p value is the level at which the interval just reaches 0
    touching = new_seeds_and_examples(first, [d], level=1 - both.p)
    assert min(abs(touching.low), abs(touching.high)) == pytest.approx(0, abs=1e-6)
    # where examples add nothing it is the first
    flat = d.mean(1, keepdims=True) + differences(3, 60) * 1e-9
    assert new_seeds_and_examples(new_seeds([flat]), [flat]).high == pytest.approx(new_seeds([flat]).high, abs=1e-6)
    two = [d, differences(3, 30, of_seed=0.5, of_example=1)]
    mean = new_seeds_and_examples(new_seeds(two), two)
    parts = [components(one).example / one.shape[1] for one in two]
    assert mean.error == pytest.approx(math.hypot(new_seeds(two).error, math.sqrt(sum(parts)) / 2))


def test_each_interval_sees_its_own_source_and_not_the_other() -> None:
    seeds, example = differences(4, 500, of_seed=3), differences(4, 500, of_example=8)

    def width(one):
        return one.high - one.low

    assert width(new_seeds([seeds])) > 5 * width(new_examples([seeds]))
    assert width(new_examples([example])) > 3 * width(new_seeds([example]))
    for d in (seeds, example):
        both = width(new_seeds_and_examples(new_seeds([d]), [d]))
        assert both >= max(width(new_seeds([d])), 0.95 * width(new_examples([d])))


def test_one_seed_answers_one_question() -> None:
    d = differences(1, 100)
    assert math.isnan(new_seeds([d]).low) and not math.isnan(new_examples([d]).low)
    assert math.isnan(new_seeds_and_examples(new_seeds([d]), [d]).low)


def test_mcnemar_is_exact_by_hand() -> None:
    """9 examples only one run has right, 1 only the other: p = 2 (1 + 10) / 2^10 (Agresti's sign test)."""
    a = np.array([True] * 9 + [False] + [True] * 50 + [False] * 20)
    b = np.array([False] * 9 + [True] + [True] * 50 + [False] * 20)
    assert mcnemar(a, b) == pytest.approx(2 * 11 / 1024) == mcnemar(b, a)
    assert mcnemar(a, a) == 1.0
    with pytest.raises(ValueError, match="one length"):
        mcnemar(a, b[:-1])


@pytest.mark.parametrize("metric", [*examples.CLASSES, *examples.SCORES])
def test_contributions_average_to_the_metric_that_the_program_computes(metric: str) -> None:
    from kdexp.tasks import metrics

    kind = "regression" if metric in examples.SCORES else "classification"
    classes = 2 if metric == "f1" else 3
    labels = RNG.normal(size=80) if kind == "regression" else RNG.integers(0, classes, 80)
    logits = RNG.normal(size=(80, 1 if kind == "regression" else classes))
    logits[:, 0] += labels if kind == "regression" else 0
    if kind == "classification":
        logits[np.arange(80), labels] += 1
    found = examples.contributions(metric, logits, labels)
    answers = logits[:, 0] if kind == "regression" else logits.argmax(1)
    assert found.mean() == pytest.approx(100 * metrics.compute([metric], kind, answers, labels)[metric])
    # a jackknife by deleting rows one by one
    without = [
        100 * metrics.compute([metric], kind, np.delete(answers, row), np.delete(labels, row))[metric]
        for row in range(80)
    ]
    by_hand = found.mean() + 79 * (np.mean(without) - without)
    assert found == pytest.approx(by_hand, abs=1e-6)


def test_an_example_contributes_all_or_nothing_to_accuracy() -> None:
    logits = RNG.normal(size=(30, 4))
    labels = RNG.integers(0, 4, 30)
    assert examples.contributions("accuracy", logits, labels) == pytest.approx(100.0 * (logits.argmax(1) == labels))


def test_constant_answers_have_contributions_too() -> None:
    logits = np.tile([1.0, 0.0], (20, 1))
    labels = np.array([0] * 12 + [1] * 8)
    for metric in examples.CLASSES:
        assert np.isfinite(examples.contributions(metric, logits, labels)).all(), metric
    with pytest.raises(ValueError, match="no contributions"):
        examples.contributions("bleu", logits, labels)


def test_expected_maximum_by_hand() -> None:
    """All pairs of (1, 2, 4) have the maxima 2, 4, 4."""
    assert expected_maximum([1, 2, 4], 2) == pytest.approx(10 / 3)
    assert expected_maximum([4, 1, 2], 1) == pytest.approx(7 / 3) and expected_maximum([1, 2, 4], 3) == 4
    values = RNG.normal(size=400)
    assert expected_maximum(values, 5) == pytest.approx(1.163, abs=0.15)  # normal order statistics: 1.16296
    for k in (0, 4):
        with pytest.raises(ValueError, match="1 <= k <= n"):
            expected_maximum([1, 2, 4], k)
