"""Metrics by the names of scikit-learn's scorers (``roc_auc``, ``balanced_accuracy``, ``neg_log_loss``, ...).

A scorer asks an estimator; here the estimator is a model's answers. All scorers are better when higher; those that
count errors are negative (``neg_...``). Probabilities are a softmax over classes, a sigmoid of each of several labels.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

CLASSES = {
    *("accuracy", "balanced_accuracy", "top_k_accuracy", "average_precision", "neg_brier_score", "neg_log_loss"),
    *("matthews_corrcoef", "d2_log_loss_score", "d2_brier_score"),
    *("positive_likelihood_ratio", "neg_negative_likelihood_ratio"),
    *(f"{name}{kind}" for name in ("f1", "precision", "recall", "jaccard") for kind in
      ("", "_micro", "_macro", "_weighted", "_samples")),
    *(f"roc_auc{kind}" for kind in ("", "_ovr", "_ovo", "_ovr_weighted", "_ovo_weighted")),
}  # fmt: skip
"""Scorers of classes, and of labels of which there can be several."""
GROUPS = {
    *("adjusted_mutual_info_score", "adjusted_rand_score", "completeness_score", "fowlkes_mallows_score"),
    *("homogeneity_score", "mutual_info_score", "normalized_mutual_info_score", "rand_score", "v_measure_score"),
}
"""Scorers of clusterings, whose groups have no names."""


class _Answers:
    """What a model has answered, as scikit-learn asks an estimator; examples are their numbers."""

    def __init__(self, kind: str, logits: np.ndarray) -> None:
        self.kind, self.logits = kind, logits.astype(np.float64)
        if kind != "regression":
            count = logits.shape[1]
            self.classes_: Any = [np.arange(2)] * count if kind == "multilabel" else np.arange(count)

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, RegressorTags, Tags, TargetTags

        of = "regressor" if self.kind == "regression" else "classifier"
        tags = Tags(estimator_type=of, target_tags=TargetTags(required=True))
        tags.classifier_tags, tags.regressor_tags = ClassifierTags(), RegressorTags()
        return tags

    def fit(self, *ignored: Any) -> None:
        """Is there because scikit-learn takes nothing without it for an estimator."""

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Return scores (n,), class ids (n,), or which labels are there (n, C)."""
        logits = self.logits[rows]
        if self.kind == "regression":
            return logits.reshape(-1)
        return (logits > 0).astype(int) if self.kind == "multilabel" else logits.argmax(axis=1)

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        """Return probabilities (n, C)."""
        logits = self.logits[rows]
        from scipy.special import expit, softmax

        return np.asarray(expit(logits) if self.kind == "multilabel" else softmax(logits, axis=1))


def compute(names: list[str], kind: str, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Evaluate scorers by name.

    Args:
        names: of scorers.
        kind: ``classification``, ``regression`` or ``multilabel``.
        logits: (n, C), or (n,) scores of a regression.
        labels: (n,) class ids or scores, or (n, C) which labels are there.

    Raises:
        ValueError: a scorer is not defined on these labels, such as ``roc_auc`` where all are of one class.
    """
    from sklearn.metrics import get_scorer

    answers, rows, out = _Answers(kind, logits), np.arange(len(labels)), dict[str, float]()
    truth = labels.astype(int) if kind == "multilabel" else labels
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                value = float(get_scorer(name)(answers, rows, truth))
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"metric {name} is not defined here: {' '.join(str(error).split())[:200]}") from error
        if not np.isfinite(value):
            raise ValueError(f"metric {name} is not defined on these {len(labels)} labels, such as those of one class")
        out[name] = value
    return out


@functools.cache
def problem(name: str, kind: str, width: int) -> str:
    """Return why a name is no metric of a task, as the end of a sentence; '' = it is one.

    Whether a scorer takes that many classes, wrong numbers and answers that are all alike is tried on some made up.

    Args:
        name: of a scorer.
        kind: of the task.
        width: classes or labels; 1 for a regression.
    """
    from sklearn.metrics import get_scorer_names

    if name not in get_scorer_names():
        return "does not exist"
    if name in GROUPS:
        return "compares clusterings, whose groups have no names"
    if (name in CLASSES) == (kind == "regression"):
        return f"scores {'classes' if name in CLASSES else 'numbers'} and does not exist"
    logits, labels = _made_up(kind, width)
    try:
        compute([name], kind, logits, labels)
        compute([name], kind, np.broadcast_to(logits[:1], logits.shape), labels)
    except ValueError as error:
        those = {"regression": "every number", "multilabel": f"{width} labels"}.get(kind, f"{width} classes")
        return f"does not fit {those} ({str(error).partition(': ')[2] or error})"
    return ""


def _made_up(kind: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels of a few examples, some of them answered wrongly."""
    if kind == "regression":
        return np.array([-1.0, 2.0, 3.5]), np.array([1.5, 2.0, 3.0])
    if kind == "multilabel":
        return np.eye(width + 1, width)[::-1] - 0.5, np.eye(width + 1, width)
    classes = np.tile(np.arange(width), 2)
    return np.eye(width)[np.roll(classes, width // 2)] + np.eye(width)[classes], classes
