"""Metrics by scikit-learn's names: the same numbers as its own functions give, and what does not fit is a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as sk

from kdexp.tasks import metrics, scorers
from tests.tasks.test_task_metrics import task

RNG = np.random.default_rng(7)
N = 60


def answers(width: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of every class, and logits that know something of them."""
    labels = np.arange(N) % width
    return (RNG.normal(size=(N, width)) + np.eye(width)[labels]).astype(np.float32), labels


def test_two_classes_score_as_scikit_learn_says():
    logits, labels = answers(2)
    chance = softmax(logits.astype(np.float64), axis=1)[:, 1]
    expected = {
        "roc_auc": sk.roc_auc_score(labels, chance),
        "average_precision": sk.average_precision_score(labels, chance),
        "neg_log_loss": -sk.log_loss(labels, chance),
        "neg_brier_score": -sk.brier_score_loss(labels, chance),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, logits.argmax(1)),
        "recall": sk.recall_score(labels, logits.argmax(1)),
    }
    assert 0.5 < expected["roc_auc"] < 1
    assert scorers.compute([*expected], "classification", logits, labels) == pytest.approx(expected, abs=1e-12)
    asked = task(metrics=["accuracy", "roc_auc", "f1"], metric="roc_auc")
    got = asked.evaluate({"logits": logits}, {"label": labels})
    assert list(got) == ["accuracy", "roc_auc", "f1"] and got["roc_auc"] == pytest.approx(expected["roc_auc"])
    assert got["f1"] == sk.f1_score(labels, logits.argmax(1)), "a name that kdexp has itself keeps its meaning"
    assert asked.trivial({"label": labels}, {"label": labels})["roc_auc"] == 0.5


def test_more_classes_several_labels_and_numbers_do_too():
    logits, labels = answers(4)
    chances = softmax(logits.astype(np.float64), axis=1)
    got = scorers.compute(["roc_auc_ovr", "top_k_accuracy", "precision_macro"], "classification", logits, labels)
    assert got["roc_auc_ovr"] == pytest.approx(sk.roc_auc_score(labels, chances, multi_class="ovr"))
    assert got["top_k_accuracy"] == pytest.approx(sk.top_k_accuracy_score(labels, chances, k=2))
    assert got["precision_macro"] == pytest.approx(sk.precision_score(labels, logits.argmax(1), average="macro"))
    several = (RNG.random((N, 4)) < 0.4) | np.eye(N, 4, dtype=bool)
    got = metrics.compute(["f1_micro", "roc_auc", "recall_samples"], "multilabel", logits > 0, several, logits)
    assert got["roc_auc"] == pytest.approx(sk.roc_auc_score(several, expit(logits.astype(np.float64))))
    assert got["recall_samples"] == pytest.approx(
        sk.recall_score(several, logits > 0, average="samples", zero_division=0)
    )
    said, true = logits[:, 0], labels + RNG.normal(size=N)
    got = metrics.compute(["pearson", "r2", "neg_root_mean_squared_error"], "regression", said, true)
    assert got["r2"] == pytest.approx(sk.r2_score(true, said))
    assert got["neg_root_mean_squared_error"] == pytest.approx(-sk.root_mean_squared_error(true, said))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"metrics": ["roc_auc"], "metric": "roc_auc", "label_names": ["a", "b", "c"]}, "does not fit 3 classes"),
        ({"metrics": ["r2"], "metric": "r2"}, "scores numbers and does not exist for task.kind=classification"),
        ({"metrics": ["rand_score"], "metric": "rand_score"}, "compares clusterings"),
        ({"metrics": ["roc_acu"], "metric": "roc_acu"}, "does not exist for task.kind=classification; choose among"),
        ({"metrics": ["accuracy"], "metric": "roc_auc"}, "task.metric=roc_auc is not among task.metrics"),
        (
            {"kind": "regression", "label_names": [], "metrics": ["neg_mean_gamma_deviance"], "metric": "pearson"},
            "does not fit every number",
        ),
    ],
)
def test_what_does_not_fit_is_a_sentence(kwargs, message):
    with pytest.raises(ValueError, match=message):
        task(**kwargs)


def test_a_score_that_the_labels_do_not_define_is_named():
    with pytest.raises(ValueError, match="metric roc_auc is not defined"):
        scorers.compute(["roc_auc"], "classification", np.eye(2)[[0, 1, 1]], np.array([1, 1, 1]))
