"""Label order of a ready classifier against the data's."""

from __future__ import annotations

import pytest

from kdexp.tasks.labels import check_labels
from kdexp.tasks.text.table import TextTask

MNLI = TextTask(name="mnli", columns=["a", "b"], folder="x", label_names=["entailment", "neutral", "contradiction"])
STSB = TextTask(name="stsb", columns=["a", "b"], folder="x", kind="regression", metrics=["pearson"], metric="pearson")


@pytest.mark.parametrize(
    "names",
    [
        {0: "entailment", 1: "neutral", 2: "contradiction"},
        {"0": "ENTAILMENT", "1": "Neutral", "2": "contradict"},
        {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"},
        {2: "contradiction", 0: "entailment", 1: "neutral"},
    ],
)
def test_same_meaning(names: dict) -> None:
    assert check_labels(names, MNLI) == []


def test_other_order_is_named() -> None:
    [found] = check_labels({0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}, MNLI)
    assert found.startswith("label order differs: the teacher's outputs are ['CONTRADICTION', 'NEUTRAL', 'ENTAILMENT']")
    assert "['entailment', 'neutral', 'contradiction']" in found
    assert "teacher.finetune=true" in found


def test_other_names_and_counts_are_named() -> None:
    assert "label names differ" in check_labels({0: "x", 1: "y", 2: "z"}, MNLI)[0]
    assert "has 2 outputs ['no', 'yes'], task=mnli needs 3" in check_labels({0: "no", 1: "yes"}, MNLI)[0]
    assert check_labels({0: "LABEL_0"}, STSB) == []
    assert "(a score)" in check_labels({0: "no", 1: "yes"}, STSB)[0]
