"""Questions with spans as answers: rows, windows, the head, the official scores, whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from kdexp.cli import vectors
from kdexp.common.problems import ConfigError
from kdexp.heads.batch import Batch
from kdexp.heads.span import Span
from kdexp.run import execute, spec
from kdexp.tasks.text import answers, questions, tokenizer, windows
from kdexp.tasks.text.questions import COLUMNS, Questions
from kdexp.tasks.text.span import SpanTask
from tests.tasks import squads
from tests.test_runs import toy

# --- the official definition, by hand --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("The Denver Broncos!", ["Denver Broncos"], 1, 1),  # articles and punctuation do not count
        ("a cat, an owl", ["cat owl"], 1, 1),
        ("Denver", ["Denver Broncos"], 0, 2 / 3),  # precision 1, recall 1/2
        ("in Denver Broncos stadium", ["Denver Broncos"], 0, 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("Broncos", ["Panthers", "the Broncos"], 1, 1),  # the best of several
        ("14 Feb", ["14 February", "Feb 14 2016"], 0, 2 * 1 * (2 / 3) / (1 + 2 / 3)),
        ("cat cat", ["cat"], 0, 2 / 3),  # a word counts as often as it stands there
        ("anthem", ["an them"], 0, 0),  # articles are words, not letters
        ("U.S.", ["US"], 1, 1),
        ("–5", ["5"], 0, 0),  # an en dash is no ASCII punctuation
        ("", ["cat"], 0, 0),
        ("the", ["a"], 1, 0),  # both empty: equal as texts, without a word in common (SQuAD 1.1)
    ],
)
def test_scores_of_squad_1_1(answer, right, exact, f1):
    assert answers.best(answer, right) == pytest.approx((exact, f1))


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("", [], 1, 1),  # no answer, and none is right
        ("cat", [], 0, 0),
        ("", ["cat"], 0, 0),
        ("the", [], 1, 1),  # nothing is left of it
        ("", ["the"], 1, 1),
        ("cat", ["", "cat dog"], 0, 2 / 3),
    ],
)
def test_scores_of_squad_2_0(answer, right, exact, f1):
    assert answers.best(answer, right, empty=True) == pytest.approx((exact, f1))


# --- rows ------------------------------------------------------------------------------------------------------------


def row(**changes) -> dict:
    base = {"id": "1", "title": "t", "question": "Who?", "context": "Ærø: the day was warm and kind"}
    return {**base, "answers": {"text": ["warm"], "answer_start": [17]}, **changes}


def said(*pairs: tuple[str, object]) -> dict:
    return {"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(answers=said(("warm", 12)))], "the answer 'warm' does not stand at character 12 .* stands at 17"),
        ([row(answers=said(("warm", 19)))], "answer_start counts bytes there"),
        ([row(answers=said(("cold", 17)))], "it is nowhere in the context: correct or remove the row"),
        ([row(answers=said(("Warm", 17)))], "in other capitals only"),
        ([row(answers=said(("warm", -3)))], "does not stand at character -3"),
        ([row(answers=said(("warm", 17), ("kind", 0)))], "'kind' does not stand at character 0"),
        ([row(answers=said())], "there is no answer, and task.unanswerable=false: .* use task=squad_v2"),
        ([row(answers={"text": ["warm"], "answer_start": []})], "as many texts as places"),
        ([row(answers="warm")], "as many texts as places"),
        ([row(answers=said(("warm", "17")))], "'warm' at '17' is no answer"),
        ([row(answers=said(("", 3)))], "is no answer"),
        ([row(), row()], "the id '1' stands in row 0 already"),
        ([row(context=" ")], "column context, row 0: the text is empty"),
        ([row(question="")], "column question, row 0: the text is empty"),
        ([row(question=None)], "None is no text"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_named(tmp_path, rows, message):
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=message):
        questions.read(path, dict(COLUMNS), False, True)


def test_the_published_form_is_read_as_the_columns_are(tmp_path):
    rows = [squads.question(i, unanswerable=True) for i in range(9)]
    (tmp_path / "a.json").write_text(json.dumps(squads.official(rows)))
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one, other = (questions.read(tmp_path / name, dict(COLUMNS), True, True) for name in ("a.json", "b.jsonl"))
    assert sorted(one.content()) == sorted(other.content()) and one.answers.count([]) == 3
    (tmp_path / "c.json").write_text('{"version": 1, "data": [{"title": "t"}]}')
    with pytest.raises(
        ValueError, match="neither a list of objects nor SQuAD's published form .* 'paragraphs' is missing"
    ):
        questions.read(tmp_path / "c.json", dict(COLUMNS), True, True)


def made(folder: Path, **settings) -> SpanTask:
    files = {split: f"{split}.jsonl" for split in ("train", "validation")}
    return SpanTask("toy", folder=str(folder), files=files, metrics=["exact_match", "f1"], metric="f1", **settings)


def test_whole_articles_are_held_out_near_the_asked_share(tmp_path):
    task = made(squads.folder(tmp_path, train=200, articles=20))
    cut = task.splits(None, 0.1)
    assert len(cut["heldout"]) == 20 and len(cut["train"]) == 180
    assert not set(cut["heldout"].titles) & set(cut["train"].titles)
    assert cut["heldout"].ids == task.splits(None, 0.1)["heldout"].ids, "always the same ones"
    assert len(task.splits(None, 0.0)["train"]) == 200 and "heldout" not in task.splits(None, 0.0)
    with pytest.raises(ValueError, match="train has one .* use task.columns.title=context"):
        made(squads.folder(tmp_path / "one", articles=1)).splits(None, 0.1)
    by_context = made(tmp_path / "one", columns={**COLUMNS, "title": "context"}).splits(None, 0.1)
    assert not set(by_context["heldout"].contexts) & set(by_context["train"].contexts)
    (tmp_path / "a.json").write_text(json.dumps(squads.official([squads.question(i, articles=1) for i in range(9)])))
    published = questions.read(tmp_path / "a.json", {**COLUMNS, "title": "context"}, False, True)
    assert published.titles == published.contexts, "of the published form too"


def test_articles_in_two_splits_are_said(tmp_path):
    squads.folder(tmp_path)
    (tmp_path / "validation.jsonl").write_text((tmp_path / "train.jsonl").read_text())
    task = made(tmp_path)
    lines = task.leaks(task.records(None, None))
    assert lines[0] == "task toy: 8 articles of validation are in train too: no clean score" and "contexts" in lines[1]


# --- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_windows_hold_the_whole_context_and_each_answer_where_it_stands(request, tmp_path, family):
    reader = tokenizer.load(request.getfixturevalue(f"tiny_{family}_dir"))
    task = made(squads.folder(tmp_path, train=40, words=30))
    rows = task.records(None, None)["train"]
    arrays, numbers = windows.cut(reader, rows, 24, 6, 8)
    data = task.dataset(rows, arrays, numbers)
    assert len(data) > len(rows) and (data.costs <= 24).all() and numbers["lost_answers"] == 0
    for i, context in enumerate(rows.contexts):
        mine = np.flatnonzero(data.question == i)
        covered, told = set(), 0
        for w in mine:
            first, stop, null = data.places[w]
            begin = data.encoded.offsets[w]
            spans = [tuple(pair) for pair in data.characters[begin + first : begin + stop].tolist()]
            covered |= {c for one, end in spans for c in range(one, end)}
            start, last = data.encoded.labels[w]
            if start != null:
                told += 1
                text, at = rows.answers[i][0]
                assert context[data.characters[begin + start][0] : data.characters[begin + last][1]].strip() == text
                assert data.characters[begin + start][0] in (at, at - 1)
        assert told and {c for c, sign in enumerate(context) if sign != " "} <= covered
    shared = []
    for w in (0, 1):
        first, stop, _ = data.encoded.offsets[w] + data.places[w]
        shared.append({tuple(pair) for pair in data.characters[first:stop].tolist()})
    assert len(shared[0] & shared[1]) == 6, "the stride is what neighbours share"


def test_a_question_is_cut_and_counted(tiny_bert_dir, tmp_path):
    reader = tokenizer.load(tiny_bert_dir)
    rows = Questions(["1"], ["t"], ["the day was and its light"], ["warm day"], [[("warm", 0)]])
    arrays, numbers = windows.cut(reader, rows, 32, 4, 3)
    assert numbers["cut_questions"] == 1 and reader.decode(arrays["tokens"]) == "[CLS] the day was [SEP] warm day [SEP]"


def test_an_input_that_is_too_short_for_windows_is_refused(kdexp, tiny_bert_dir, tiny_csv_task, tmp_path):
    mine = squads.words(squads.folder(tmp_path / "squad"))
    words = [w for w in toy(tiny_bert_dir, tiny_csv_task) if not w.startswith("task")]
    done = kdexp([*words, *mine, "task.stride=30", "objective=att_kl", "data.heldout=0.001"])
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (tmp_path / "multirun").exists()
    assert "max_length=32 leaves 13 tokens of context beside 3 special ones and a question of 16" in done.stderr
    assert "data.heldout=0.001 of 64 training rows leaves one side empty" in done.stderr


# --- the head --------------------------------------------------------------------------------------------------------


def batch(mask: list[list[int]], start: list[int], end: list[int]) -> Batch:
    inside = torch.tensor(mask, dtype=torch.bool)
    index = torch.arange(len(mask))
    labels = {
        "context": inside,
        "null": torch.zeros_like(index),
        "start": torch.tensor(start),
        "end": torch.tensor(end),
    }
    return Batch({}, torch.ones_like(inside, dtype=torch.long), labels, index)


def outputs(start: list[list[float]], end: list[list[float]]) -> dict[str, torch.Tensor]:
    return {"start_logits": torch.tensor(start), "end_logits": torch.tensor(end)}


def test_question_and_padding_never_count():
    one = batch([[1, 0, 1, 1, 0]], [2], [3])
    head = Span()
    torch.manual_seed(0)
    student = {n: torch.randn(1, 5, requires_grad=True) for n in head.names}
    teacher = {n: torch.randn(1, 5) for n in head.names}
    spoiled = {n: x.masked_fill(~one.labels["context"], 1e4) for n, x in teacher.items()}
    for form in ("kl", "soft_ce"):
        for reduction in ("batchmean", "mean", "sum"):
            a = head.soft_loss(student, teacher, one, 2.0, form, reduction)
            assert torch.equal(a, head.soft_loss(student, spoiled, one, 2.0, form, reduction)) and a.isfinite()
    assert torch.equal(head.squared_error(student, teacher, one), head.squared_error(student, spoiled, one))
    (head.loss(student, one) + head.soft_loss(student, teacher, one)).backward()
    for x in student.values():
        assert x.grad[0, [1, 4]].eq(0).all() and x.grad.isfinite().all() and x.grad[0, 2].abs() > 0
    as_coded = Span(variant="as_coded")
    assert not torch.equal(as_coded.soft_loss(student, teacher, one), as_coded.soft_loss(student, spoiled, one))


def test_the_span_loss_by_hand():
    """Softmax over positions 0, 2, 3 alone: equal logits give log 3 for a side, whatever stands elsewhere."""
    one = batch([[1, 0, 1, 1, 0]], [2], [3])
    flat = outputs([[0.0, 9.0, 0.0, 0.0, 9.0]], [[0.0, 9.0, 0.0, 0.0, 9.0]])
    assert Span().loss(flat, one).item() == pytest.approx(np.log(3))
    two = batch([[1, 0, 1, 1, 0], [1, 0, 1, 0, 0]], [2, 0], [3, 0])
    both = {n: x.repeat(2, 1) for n, x in flat.items()}
    assert Span().loss(both, two).item() == pytest.approx((np.log(3) + np.log(2)) / 2)
    assert Span().loss(both, two, "sum").item() == pytest.approx(np.log(3) + np.log(2))
    teacher = outputs([[0.0, 0, np.log(2), 0, 0]], [[0.0, 0, 0, 0, 0]])  # start: 1/4, 1/2, 1/4
    kl = 0.25 * np.log(0.75) * 2 + 0.5 * np.log(1.5)
    assert Span().soft_loss(flat, teacher, one).item() == pytest.approx(kl / 2, abs=1e-6)
    assert Span().soft_loss(flat, teacher, one, reduction="mean").item() == pytest.approx(kl / 2 / 3, abs=1e-6)
    gap = Span().squared_error(flat, teacher, one, 0.5).item()
    assert gap == pytest.approx((np.log(2) / 2) ** 2 / 3 / 2)


def test_teds_form_is_its_golden_value():
    known = vectors.load(Path(__file__).resolve().parents[1] / "data" / "vectors.json")
    (vector,) = [v for v in known if v["id"] == "ted.qa_kl"]
    values = vectors.inputs(vector["inputs"])
    one = batch([[1] * values["student_start"].shape[1]] * len(values["student_start"]), [0, 0], [0, 0])
    sides = [{f"{side}_logits": values[f"{who}_{side}"] for side in ("start", "end")} for who in ("student", "teacher")]
    loss = Span(variant="as_coded").soft_loss(*sides, one, temperature=2.0)
    assert loss.item() == pytest.approx(vector["expected"], rel=1e-6)


def test_the_best_pairs_are_those_of_the_released_post_processing():
    """Against a plain rewriting of it: highest starts x highest ends, in order, short enough, in the context."""
    torch.manual_seed(1)
    length, head = 17, Span(n_best=4, max_answer_tokens=3)
    one = batch([[1, 0, 0, *[1] * (length - 4), 0]] * 6, [0] * 6, [0] * 6)
    answered = {n: torch.randn(6, length) for n in head.names}
    kept = head.predictions(answered, one)
    for i in range(6):
        start, end = (answered[n][i].masked_fill(~one.labels["context"][i], -1e9) for n in head.names)
        start[0] = end[0] = -1e9  # the null position is no word
        starts, ends = (np.argsort(-x.numpy())[:4] for x in (start, end))
        pairs = [(start[s] + end[e], s, e) for s in starts for e in ends if 0 <= e - s < 3]
        pairs.sort(key=lambda pair: -pair[0])
        found = [tuple(pair) for pair, score in zip(kept["spans"][i].tolist(), kept["scores"][i], strict=True)
                 if score > -1e8]  # fmt: skip
        assert found == [(s, e) for _, s, e in pairs][:4]
        assert kept["null"][i] == answered["start_logits"][i, 0] + answered["end_logits"][i, 0]
    few = Span(n_best=20).predictions({n: x[:1, :5] for n, x in answered.items()}, batch([[1, 0, 0, 1, 1]], [0], [0]))
    assert few["spans"].shape == (1, 20, 2) and few["scores"].isfinite().sum() == 3


def test_the_answer_is_the_best_window_and_nothing_is_said_above_the_threshold(tiny_bert_dir, tmp_path):
    task = made(squads.folder(tmp_path, train=6, words=30, unanswerable=True), unanswerable=True, null_threshold=1.0)
    rows = task.records(None, None)["train"]
    data = task.dataset(rows, *windows.cut(tokenizer.load(tiny_bert_dir), rows, 24, 6, 8))
    n = len(data)
    spans, scores, null = np.zeros((n, 2, 2), int), np.full((n, 2), -5.0), np.full(n, 3.0)
    last = np.flatnonzero(data.question == 1)[-1]
    spans[last, 0], scores[last, 0], null[last] = data.encoded.labels[last], 2.0, 2.5
    kept = data.gather({"spans": spans, "scores": scores, "null": null})
    assert kept["score"][1] == 2.0 and kept["null"][1] == 2.5, "the best of all windows, the lowest null score"
    text = task.answered(kept, data.truths)
    assert text[1] == (rows.answers[1][0][0] if data.encoded.labels[last][0] else "") or data.places[last][2] == 0
    assert text[0] == "", "3.0 is more than 1 above -5"
    kept["null"][1] = 3.5
    assert task.answered(kept, data.truths)[1] == ""
    written = task.published(kept, data.truths)
    assert list(written[".json"]) == rows.ids and written[".null_odds.json"]["q1"] == pytest.approx(1.5)


def test_what_questions_contribute_to_a_score_of_some_of_them(tmp_path):
    """The mean is the metric, and another answer to a question of the other kind changes no share."""
    names = ["exact_match", "f1", "has_answer_f1", "no_answer_exact_match"]
    task = SpanTask("toy", folder=str(tmp_path), metrics=names, metric="f1", unanswerable=True)
    targets = {"context": ["a cat", "a dog", "a cow", "a hen"], "answers": [["cat"], ["dog sat"], [], []]}
    kept = {"span": [[2, 5]] * 4, "score": [1.0, 1.0, 1.0, -1.0], "null": [0.0] * 4}
    shares, scores = task.contributions(kept, targets), task.evaluate(kept, targets)
    assert set(shares) == set(names)
    assert {name: values.mean() for name, values in shares.items()} == pytest.approx(scores)
    assert scores["has_answer_f1"] == pytest.approx((1 + 2 / 3) / 2) and scores["no_answer_exact_match"] == 0.5
    assert shares["has_answer_f1"][2] == shares["has_answer_f1"][3] == scores["has_answer_f1"]


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(compose, tiny_csv_task, tmp_path, monkeypatch, tiny_bert_dir):
    from kdexp.cli import main

    monkeypatch.chdir(tmp_path)
    main.environment()

    def one(*overrides: str, task: str = "squad", **settings) -> dict:
        place = squads.folder(tmp_path / task, unanswerable=task == "squad_v2", **settings)
        words = [w for w in toy(tiny_bert_dir, tiny_csv_task) if not w.startswith("task")]
        return execute.execute(spec.make(compose(*words, *squads.words(place, task), *overrides)))

    return one


LEARN = [
    "teacher.recipe.epochs=10",
    "recipe.epochs=10",
    "teacher.recipe.learning_rate=5e-3",
    "recipe.learning_rate=5e-3",
]


@pytest.mark.parametrize("task", ["squad", "squad_v2"])
def test_a_run_learns_and_leaves_what_the_official_evaluation_reads(run, tmp_path, task):
    result = run("objective=kd", *LEARN, task=task, train=96, words=30)
    assert result["task"]["kind"] == "span" and result["task"]["questions"]["validation"] == 24
    assert result["task"]["rows"]["validation"] > 24, "windows"
    assert result["task"]["scored"]["validation"] == 24, "questions"
    assert result["scores"]["validation"]["f1"] > result["task"]["majority"]["validation"]["f1"] + 0.25
    folder = tmp_path / result["run"]["folder"] / "predictions"
    texts = json.loads((folder / "validation.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / task / "validation.jsonl").read_text().splitlines()]
    assert list(texts) == [row["id"] for row in rows]
    empty = task == "squad_v2"
    pairs = [answers.best(texts[row["id"]], row["answers"]["text"], empty) for row in rows]
    exact, f1 = np.mean(pairs, axis=0)
    assert (exact, f1) == pytest.approx([result["scores"]["validation"][name] for name in ("exact_match", "f1")])
    kept = load_file(folder / "validation.safetensors")
    assert len(kept["ids"]) == 24 and kept["by_example.f1"].mean() == pytest.approx(f1)
    assert (folder / "validation.null_odds.json").is_file() == empty
    assert set(result["predictions"]) == {"heldout", "validation"}


def test_what_the_teacher_answers_is_stored_and_changes_no_number(run):
    stored = run("objective=kd", "study=a", "runtime.teacher_cache=1GB", train=24)
    live = run("objective=kd", "study=b", "runtime.teacher_cache=off", "runtime.store=other", train=24)
    assert stored["runtime"]["teacher"]["distill.prediction"]["cached"]
    assert not live["runtime"]["teacher"]["distill.prediction"]["cached"]
    assert stored["scores"] == live["scores"]
    coded = run("objective=kd", "study=c", "runtime.teacher_cache=1GB", "task.variant=as_coded", train=24)
    assert "its answers are read at padding" in coded["runtime"]["teacher"]["distill.prediction"]["why"]


OBJECTIVES = ["finetune", "annealing", "hid_cls", "att_kl_val_kl", "minilm_v2", "ted", "lwd", "pro_kd", "pkd", "review",
              "dpk", "ld", "ikd"]  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_live_on_spans(run, objective):
    more = {"annealing": ["recipe.steps=null", "objective.intermediate.annealing.tau_max=1"]}
    short = ["recipe.steps=2", "teacher.recipe.steps=2", *more.get(objective, [])]
    result = run(f"objective={objective}", *short, train=24)
    assert 0 <= result["scores"]["validation"]["f1"] <= 1


@pytest.mark.parametrize("objective", ["clkd", "continuation", "hid_cls_contrast", "lgtm"])
def test_objectives_that_cannot_are_refused_before_anything_is_loaded(run, objective, tmp_path):
    with pytest.raises(ConfigError, match=f"{objective} needs .*, which the head span does not have"):
        run(f"objective={objective}")
    assert not (tmp_path / "multirun").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["objective=ikd", "objective.noise.mode=delete"], "noise.mode=delete moves what follows"),
        (["objective=ensemble"], "method=ensemble needs one row of logits .*, which the head span does not have"),
        (["objective=arriving"], "method=arriving needs a distribution over classes"),
    ],
)
def test_methods_that_cannot_are_refused_before_anything_is_loaded(run, words, told, tmp_path):
    with pytest.raises(ConfigError, match=told):
        run(*words)
    assert not (tmp_path / "multirun").exists()


def test_a_teacher_without_the_head_is_refused(run, tiny_bert_dir):
    with pytest.raises(ConfigError, match="has no weights of a classifier \\(qa_outputs"):
        run("objective=kd", "teacher.finetune=false")


def test_two_runs_are_compared_question_by_question(run, tmp_path):
    """The analysis takes each question's F1 from what the run kept, and finds the run's own score in it."""
    from analysis import predictions

    results = [
        run("objective=kd", "recipe.steps=4", "teacher.recipe.steps=4", f"seed={seed}", train=24) for seed in (1, 2)
    ]
    kept = [
        predictions.read(tmp_path / one["run"]["folder"], sha256=one["predictions"]["validation"]) for one in results
    ]
    rows = predictions.scores_by_example(kept, "f1")
    assert rows.shape == (2, 24)
    assert rows.mean(axis=1) == pytest.approx([100 * one["scores"]["validation"]["f1"] for one in results])
    with pytest.raises(
        ValueError, match="does not say what its examples contribute to mcc; it does for exact_match, f1"
    ):
        predictions.scores_by_example(kept, "mcc")
