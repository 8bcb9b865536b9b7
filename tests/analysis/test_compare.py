"""The comparison of two methods: from predictions as runs keep them, and from scores alone where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import stats as sps

from analysis import compare, crossed, predictions
from analysis.budget import half_width, options
from analysis.collect import Collected, collect
from tests.analysis.program import Program
from tests.analysis.synthetic import write_points, write_run

EXAMPLES = 400


class Study:
    """A study whose runs answer the same examples; every run keeps its predictions in an order of its own."""

    def __init__(self, root: Path, study: str = "s"):
        self.program = Program(root, study)
        self.rng = np.random.default_rng(0)
        self.labels = self.rng.integers(0, 2, EXAMPLES)
        self.hard = self.rng.normal(0, 1.0, EXAMPLES)
        self.correct: dict[tuple[str, int], np.ndarray] = {}

    def run(self, objective: str, seed: int, skill: float, *words: str, **more: Any) -> None:
        right = self.rng.normal(skill, 1.0, EXAMPLES) > self.hard
        self.correct[objective, seed] = right
        logits = np.zeros((EXAMPLES, 2), dtype=np.float16)
        logits[np.arange(EXAMPLES), np.where(right, self.labels, 1 - self.labels)] = 2
        scores = {"accuracy": float(right.mean())}
        result = self.program.run(
            "task=sst2", f"objective={objective}", *words, seed=seed, scores=scores, rows=EXAMPLES, **more
        )
        folder = write_run(self.program.root, result) / "predictions"
        order = self.rng.permutation(EXAMPLES)
        arrays = {"logits": logits[order], "target.label": self.labels[order], "ids": 1000 + order}
        folder.mkdir(exist_ok=True)
        save_file(arrays, folder / "validation.safetensors")

    def collected(self) -> Collected:
        write_points(self.program.root, self.program.study, self.program.results)
        return collect(self.program.study, self.program.root, "folders")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    out = Study(tmp_path)
    for seed in (1, 2, 3, 4):
        out.run("kd", seed, 1.4)
        out.run("finetune", seed, 0.7)
    return out


KD, FINETUNE = {"objective.name": "kd"}, {"objective.name": "finetune"}


def test_three_answers_are_those_of_the_planted_examples(study: Study) -> None:
    found = compare.compare(study.collected(), KD, FINETUNE)
    d = 100 * np.array([study.correct["kd", s] * 1.0 - study.correct["finetune", s] for s in (1, 2, 3, 4)])
    first, second, third = (found.answers[question] for question in compare.QUESTIONS)
    assert first.value == pytest.approx(d.mean()) and first.p == pytest.approx(sps.ttest_1samp(d.mean(1), 0).pvalue)
    assert (second.low, second.high) == pytest.approx(tuple(sps.ttest_1samp(d.mean(0), 0).confidence_interval()))
    assert third.error == pytest.approx(crossed.new_seeds_and_examples(crossed.new_seeds([d]), [d]).error)
    assert found.components["sst2"] == crossed.components(np.round(d, 6))
    assert not found.missing and not found.mcnemar


def test_the_report_names_questions_and_the_best_use_of_an_hour(study: Study) -> None:
    found = compare.compare(study.collected(), KD, FINETUNE)
    text = compare.markdown(found, "s", "kd", "finetune")
    for question in compare.QUESTIONS:
        assert f"| {question} | [" in text
    best = min(found.options, key=lambda one: one.then)
    assert {one.what for one in found.options} == {"seeds", "tasks", "examples"}
    assert f"The next hour buys most on {best.what}" in text


def test_one_seed_is_compared_by_mcnemar(tmp_path: Path) -> None:
    one = Study(tmp_path)
    one.run("kd", 1, 1.4)
    one.run("finetune", 1, 0.7)
    found = compare.compare(one.collected(), KD, FINETUNE)
    p = crossed.mcnemar(one.correct["kd", 1], one.correct["finetune", 1])
    assert found.mcnemar == {"sst2": pytest.approx(p)} and found.options == ()
    text = compare.markdown(found, "s", "a", "b")
    assert f"McNemar's exact test on sst2 (one seed): p = {p:.3g}." in text
    assert "| these examples, new seeds | no answer | – |" in text


def test_without_predictions_one_question_is_answered_and_one_sentence_says_why(study: Study) -> None:
    found = study.collected()
    folder = found.folder / str(found.runs["name"].iloc[0]) / "predictions"
    next(folder.iterdir()).unlink()
    result = compare.compare(found, KD, FINETUNE)
    assert set(result.answers) == {compare.QUESTIONS[0]} and result.missing.count(". ") == 0
    text = compare.markdown(result, "s", "a", "b")
    assert "the run kept no predictions of validation" in text and "| new seeds and new examples | no answer |" in text
    assert {one.what for one in result.options} == {"seeds", "tasks"}


def test_predictions_that_do_not_fit_are_refused(study: Study, tmp_path: Path) -> None:
    found = study.collected()
    path = found.folder / str(found.runs["name"].iloc[0]) / "predictions" / "validation.safetensors"
    arrays = {"logits": np.zeros((3, 2), np.float16), "target.label": np.zeros(3, int), "ids": np.arange(3)}
    save_file(arrays, path)
    with pytest.raises(ValueError, match="do not hold the same examples"):
        compare.compare(found, KD, FINETUNE)
    for changed, words in (
        ({"ids": np.zeros(3, int)}, "1 different ids of 3"),
        ({"target.label": np.zeros(2, int)}, "2 labels"),
    ):
        save_file({**arrays, **changed}, path)
        with pytest.raises(ValueError, match=words):
            predictions.read(path.parent.parent)
    save_file({"logits": arrays["logits"]}, path)
    with pytest.raises(ValueError, match="lacks target.label, ids"):
        predictions.read(path.parent.parent)
    path.write_bytes(b"{")
    with pytest.raises(ValueError, match="cannot be read"):
        predictions.read(path.parent.parent)


def test_predictions_of_another_run_are_noticed(study: Study) -> None:
    found = study.collected()
    names = found.runs.set_index(["objective", "seed"])["name"]
    kd, other = (found.folder / str(names[objective, 1]) / "predictions" for objective in ("kd", "finetune"))
    (kd / "validation.safetensors").write_bytes((other / "validation.safetensors").read_bytes())
    with pytest.raises(ValueError, match="its predictions give accuracy .* its result says"):
        compare.compare(found, KD, FINETUNE)


def test_an_hour_shrinks_what_it_is_spent_on(study: Study) -> None:
    found = compare.compare(study.collected(), KD, FINETUNE)
    first, parts = found.answers[compare.QUESTIONS[0]], found.components
    for one in found.options:
        assert one.then < one.now, one
    seeds = {one.what: one for one in options(first, parts, [450.0], 4)}["seeds"]
    assert seeds.buys == "8 more seeds on each task"
    of_examples = (parts["sst2"].example / parts["sst2"].examples) ** 0.5
    by_hand = half_width(first.error * (4 / 12) ** 0.5, first.df * 11 / 3, of_examples)
    assert seeds.then == pytest.approx(by_hand) and seeds.now == pytest.approx(
        half_width(first.error, first.df, of_examples)
    )
    slow = options(first, parts, [7200.0], 4)
    assert slow[0].buys == "no seed: one costs 2.0 hours" and slow[0].then == slow[0].now


def test_the_command(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.collected()
    words = ["study=s", f"root={study.program.root}", "source=folders"]
    arguments = [*words, "a=objective.name=kd", "b=objective.name=finetune,init=first"]
    assert compare.main(arguments) == 0
    out = capsys.readouterr().out
    assert "objective.name=kd against objective.name=finetune,init=first" in out
    assert (study.program.root / "s/tables/compare/objective.name-kd_objective.name-finetune-init-first.md").is_file()
    for wrong, said in (
        ("b=finetune", "is not KEY=VALUE"),
        ("b=objective.name=ted", "no runs with objective.name=ted"),
    ):
        assert compare.main([*words, "a=objective.name=kd", wrong]) == 2
        assert said in capsys.readouterr().err
