"""Metrics against values worked out by hand, and their behaviour at the edges."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from kdexp.tasks import metrics
from kdexp.tasks.text.table import TextTask

PREDICTED = np.array([1, 1, 1, 0, 0, 1, 0, 0])
LABELS = np.array([1, 1, 0, 0, 0, 0, 1, 0])
# By hand: TP 2, FP 2, FN 1, TN 3.


def test_classes_by_hand() -> None:
    found = metrics.compute(["accuracy", "f1", "f1_macro", "mcc"], "classification", PREDICTED, LABELS)
    assert found["accuracy"] == pytest.approx(5 / 8)
    assert found["f1"] == pytest.approx(4 / 7)
    assert found["f1_macro"] == pytest.approx((4 / 7 + 6 / 9) / 2)
    assert found["mcc"] == pytest.approx((2 * 3 - 2 * 1) / math.sqrt(4 * 3 * 5 * 4))


def test_scores_by_hand() -> None:
    predicted, labels = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0])
    found = metrics.compute(["pearson", "spearman", "pearson_spearman"], "regression", predicted, labels)
    assert found["pearson"] == pytest.approx(1 / math.sqrt(14 / 3 * 2))
    assert found["spearman"] == pytest.approx(0.5)
    assert found["pearson_spearman"] == pytest.approx((found["pearson"] + 0.5) / 2)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_constant_answers_give_zero_and_no_noise(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.compute(list(metrics.known(kind)), kind, np.zeros(8), LABELS)
    assert all(math.isfinite(v) for v in found.values())
    assert [found.get(k, 0.0) for k in ("f1", "mcc", "pearson", "spearman")] == [0.0] * 4


def test_wrong_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        metrics.compute(["accuracy"], "classification", np.array([np.nan]), np.array([1]))
    with pytest.raises(ValueError, match="one for each"):
        metrics.compute(["accuracy"], "classification", np.zeros(2), np.zeros(3))


def task(**kwargs: object) -> TextTask:
    given = {"name": "t", "columns": ["text"], "folder": "./x", "label_names": ["a", "b"], **kwargs}
    return TextTask(**given)  # type: ignore[arg-type]


def test_evaluate_and_majority() -> None:
    two = task(metrics=["accuracy", "f1"])
    logits = np.stack([1.0 - PREDICTED, PREDICTED], axis=1)
    targets = {"label": LABELS}
    assert two.evaluate({"logits": logits}, targets)["accuracy"] == pytest.approx(5 / 8)
    assert two.trivial({"label": np.array([0, 1, 1])}, targets) == pytest.approx({"accuracy": 3 / 8, "f1": 6 / 11})
    score = task(kind="regression", label_names=[], metrics=["pearson"], metric="pearson")
    scores, targets = {"logits": np.array([[1.0], [2.0], [3.0]])}, {"label": np.array([1.0, 2.0, 3.0])}
    assert score.evaluate(scores, targets) == pytest.approx({"pearson": 1.0})
    two_scores = {"label": np.array([1.0, 2.0])}
    assert score.trivial(two_scores, two_scores) == {"pearson": 0.0}
    assert (two.head.width, score.head.width) == (2, 1)


@pytest.mark.parametrize("logits", [np.zeros((8, 3)), np.zeros(8), np.full((8, 2), np.inf)])
def test_wrong_logits_are_refused(logits: np.ndarray) -> None:
    with pytest.raises(ValueError, match="logits"):
        task().evaluate({"logits": logits}, {"label": LABELS})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"metric": "f1"}, "not among task.metrics"),
        ({"metrics": ["pearson"], "metric": "pearson"}, "does not exist for task.kind=classification"),
        ({"metrics": ["f1"], "metric": "f1", "label_names": ["a", "b", "c"]}, "two classes"),
        ({"label_names": ["a"]}, "at least two classes"),
        ({"label_names": ["a", "a"]}, "twice"),
        ({"kind": "regression"}, "a regression has none"),
        ({"kind": "ranking"}, "task.kind=ranking is unknown"),
        ({"columns": []}, "task.columns"),
        ({"limit_train": 1}, "task.limit_train=1"),
        ({"files": {"train": "a.csv"}}, "task.files.validation is needed"),
        ({"files": {"train": "a", "validation": "b", "test": "c"}}, "task.files.test"),
        ({"folder": None}, "task.folder and task.hub are both null"),
    ],
)
def test_settings_that_do_not_fit(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**kwargs)
