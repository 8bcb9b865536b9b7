"""Questions whose answer is a span of a context: SQuAD 1.1 and 2.0, and sets of the same form.

A context that is longer than an input is read through sliding windows. A window is what a model is given and what a
batch, a cost or a teacher's stored answer belongs to; an answer, a score and an id belong to a question.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdexp.common.registry import build
from kdexp.config.schema import Count
from kdexp.heads.base import Head
from kdexp.tasks.base import Batch, Dataset, Predictions, Targets
from kdexp.tasks.text import answers, questions, shown, windows
from kdexp.tasks.text.arrays import Parts
from kdexp.tasks.text.encoding import Encoded, OfEncoded, of_arrays
from kdexp.tasks.text.questions import COLUMNS, Questions
from kdexp.tasks.text.records import RecordTask
from kdexp.tasks.text.rows import held_groups

METRICS = ("exact_match", "f1")
KINDS = ("has_answer", "no_answer")
"""Questions of SQuAD 2.0, apart: each metric is also given for questions with an answer and without."""


@dataclass
class SpanTask(RecordTask[Questions]):
    """Find the answer to a question in a context, or say that it has none.

    Attributes:
        columns: what the columns are called, by what they hold; ``title`` is of the article, which the held-out part is
            cut by (``columns.title=context`` cuts by contexts, for data without articles).
        unanswerable: a context may not answer its question (SQuAD 2.0).
        null_threshold: no answer is given where its score is above the best answer's by more than this.
        stride: tokens that neighbouring windows of a context share; null = a third of recipe.max_length.
        question_tokens: a question is cut after so many tokens, and after half of recipe.max_length.
        n_best: highest starts and ends that are paired.
        max_answer_tokens: longer spans are no answers.
        variant: ``pad_aware`` = hard and soft losses run over the context's positions and the null position alone;
            ``as_coded`` = over all positions, question and padding included (transformers; TED's released code).
    """

    columns: dict[str, str] = field(default_factory=lambda: dict(COLUMNS))
    unanswerable: bool = False
    null_threshold: float = 0.0
    stride: Count | None = None
    question_tokens: Count = 64
    n_best: Count = 20
    max_answer_tokens: Count = 30
    variant: Literal["pad_aware", "as_coded"] = "pad_aware"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: naming everything that does not fit.
        """
        self.check_places()
        known = [*METRICS, *(f"{kind}_{name}" for kind in KINDS for name in METRICS if self.unanswerable)]
        wrong = [
            f"metric {name} does not exist for task={self.name}; choose among: {', '.join(known)}"
            for name in dict.fromkeys([*self.metrics, self.metric])
            if name not in known
        ]
        if self.metric not in self.metrics:
            wrong.append(f"task.metric={self.metric} is not among task.metrics={list(self.metrics)}")
        if set(self.columns) != set(COLUMNS):
            wrong.append(f"task.columns={self.columns}: name the columns of {', '.join(COLUMNS)}")
        if self.null_threshold and not self.unanswerable:
            wrong.append(
                f"task.null_threshold={self.null_threshold} has no effect with task.unanswerable=false: set it to 0"
            )
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def head(self) -> Head:
        """A span."""
        head: Head = build(
            {
                "_target_": "kdexp.heads.span.Span",
                "n_best": self.n_best,
                "max_answer_tokens": self.max_answer_tokens,
                "variant": self.variant,
            }
        )
        return head

    # --- rows -----------------------------------------------------------------------------------------------------

    def columns_asked(self, labelled: bool = True) -> dict[str, list[str]]:
        """See :meth:`Located.columns_asked`."""
        return {f"columns.{what}": [self.columns[what]] for what in COLUMNS if labelled or what != "answers"}

    def _column_problems(self, path: Path, labelled: bool = True) -> list[str]:
        return [] if questions.is_official(path) else super()._column_problems(path, labelled)

    def reading(self) -> list[Any]:
        """See :meth:`RecordTask.reading`."""
        return [self.columns, self.unanswerable]

    def read(self, path: Path, labelled: bool = True) -> Questions:
        """See :meth:`RecordTask.read`."""
        return questions.read(path, self.columns, self.unanswerable, labelled)

    def counted(self, rows: Questions) -> dict[str, Any]:
        """Return questions, articles, contexts, and questions without an answer."""
        counts = {"rows": len(rows), "articles": len(set(rows.titles)), "contexts": len(set(rows.contexts))}
        return counts | ({"without an answer": sum(not a for a in rows.answers or [])} if self.unanswerable else {})

    def leaks(self, splits: Any) -> list[str]:
        """Name articles and contexts that training shares with what is scored."""
        train, lines = splits["train"], []
        for name, rows in splits.items():
            for what, mine, others in (
                ("articles", train.titles, rows.titles),
                ("contexts", train.contexts, rows.contexts),
            ):
                both = set(mine) & set(others)
                if name != "train" and both:
                    lines.append(f"task {self.name}: {len(both)} {what} of {name} are in train too: no clean score")
        return lines

    def apart(self, train: Questions, share: float) -> np.ndarray:
        """Hold out whole articles, as many as come nearest to the share of questions.

        Raises:
            ValueError: there are too few articles.
        """
        if share and len(set(train.titles)) < 2:
            raise ValueError(
                f"data.heldout={share} holds whole articles out, and train has one ({train.titles[0]!r:.60}): use "
                "task.columns.title=context, which cuts by contexts, or data.heldout=0"
            )
        return held_groups(train.titles, share)

    # --- windows --------------------------------------------------------------------------------------------------

    def _stride(self, max_length: int) -> int:
        return max_length // 3 if self.stride is None else self.stride

    def too_short(self, reader: Any, max_length: int) -> str:
        """See :meth:`RecordTask.too_short`: a window must go on beyond what it shares with the one before."""
        special = reader.num_special_tokens_to_add(pair=True)
        question = min(self.question_tokens, max_length // 2)
        room, stride = max_length - special - question, self._stride(max_length)
        if room > stride:
            return ""
        return (
            f"max_length={max_length} leaves {room} tokens of context beside {special} special ones and a question of "
            f"{question}, and neighbouring windows share {stride} (task.stride): raise max_length of the recipe (384 "
            "is usual) and of the teacher's recipe, or lower task.stride or task.question_tokens."
        )

    def encoding(self) -> list[Any]:
        """See :meth:`RecordTask.encoding`."""
        return [self.stride, self.question_tokens]

    def encoded(self, reader: Any, max_length: int, rows: Questions) -> Parts:
        """See :meth:`RecordTask.encoded`: :func:`kdexp.tasks.text.windows.cut`."""
        return windows.cut(reader, rows, max_length, self._stride(max_length), self.question_tokens)

    def dataset(self, rows: Questions, values: dict[str, np.ndarray], numbers: dict[str, int]) -> Windows:
        """See :meth:`RecordTask.dataset`."""
        encoded = of_arrays(values, numbers["pad"], numbers["cut_questions"])
        return Windows(rows, encoded, values["question"], values["places"], values["characters"], numbers)

    # --- scores ---------------------------------------------------------------------------------------------------

    def answered(self, predictions: Predictions, targets: Targets) -> list[str]:
        """Return the text that each question is answered with, '' = it has no answer."""
        spans, contexts = np.asarray(predictions["span"]), targets["context"]
        given = [context[begin:end] for (begin, end), context in zip(spans.tolist(), contexts, strict=True)]
        if self.unanswerable:
            none = np.asarray(predictions["null"]) - np.asarray(predictions["score"]) > self.null_threshold
            given = ["" if nothing else text for nothing, text in zip(none, given, strict=True)]
        return given

    def contributions(self, predictions: Predictions, targets: Targets) -> dict[str, np.ndarray]:
        """Return exact match and F1 of every question; of a metric of some questions the jackknife's share."""
        shares = self._judged(self.answered(predictions, targets), targets)
        has = np.array([bool(right) for right in targets["answers"]])
        for kind, rows in zip(KINDS, (has, ~has), strict=True):
            for name in METRICS:
                if f"{kind}_{name}" in self.metrics and rows.any():
                    mean = shares[name][rows].mean()
                    gaps = np.where(rows, shares[name] - mean, 0.0)
                    shares[f"{kind}_{name}"] = mean + gaps * len(rows) / rows.sum()
        return shares

    def _judged(self, given: list[str], targets: Targets) -> dict[str, np.ndarray]:
        pairs = [answers.best(a, right, self.unanswerable) for a, right in zip(given, targets["answers"], strict=True)]
        return dict(zip(METRICS, np.array(pairs, dtype=np.float64).reshape(-1, 2).T, strict=True))

    def evaluate(self, predictions: Predictions, targets: Targets) -> dict[str, float]:
        """Return exact match and F1 by the official definition, as means over questions.

        Raises:
            ValueError: scores are not finite.
        """
        if np.isnan(np.asarray(predictions["score"])).any() or not np.isfinite(np.asarray(predictions["null"])).all():
            raise ValueError("logits are not finite: the training diverged (lower recipe.learning_rate)")
        return self._means(self.contributions(predictions, targets), targets)

    def _means(self, shares: dict[str, np.ndarray], targets: Targets) -> dict[str, float]:
        has = np.array([bool(right) for right in targets["answers"]])
        parts = {"": np.ones(len(has), dtype=bool), "has_answer_": has, "no_answer_": ~has}
        means = {
            f"{part}{name}": float(values[rows].mean()) if rows.any() else 0.0
            for part, rows in parts.items()
            for name, values in shares.items()
        }
        return {name: means[name] for name in self.metrics}

    def trivial(self, train: Targets, targets: Targets) -> dict[str, float]:
        """Score the most frequent answer of the training questions, given to every question."""
        firsts = Counter(answers.normalised(right[0]) if right else "" for right in train["answers"])
        most = min(firsts, key=lambda text: (-firsts[text], text))
        return self._means(self._judged([most] * len(targets["answers"]), targets), targets)

    def sheet(self, predictions: Predictions, data: Dataset, split: str) -> tuple[str, str]:
        """See :meth:`Task.sheet`: answers by id, as the official evaluation reads them."""
        texts = self.published(predictions, data.truths)[".json"]
        return f"{self.name}.{split}.json", json.dumps(texts, ensure_ascii=False, indent=1) + "\n"

    def published(self, predictions: Predictions, targets: Targets) -> dict[str, Any]:
        """Return what the official evaluation reads: texts by id, and how sure it is that there is no answer."""
        given = self.answered(predictions, targets)
        texts = dict(zip(targets["id"], given, strict=True))
        spans = np.asarray(predictions["span"]).tolist()

        def example(i: int) -> dict[str, Any]:
            rows: Questions = targets["rows"][0]
            right = [] if rows.answers is None else [[at, at + len(text), ""] for text, at in rows.answers[i]]
            answer = [[*spans[i], ""]] if given[i] else []
            return {"title": rows.texts_asked[i], "text": rows.contexts[i], "right": right, "answer": answer}

        files = {".json": texts, shown.ENDING: shown.document("text", len(given), example)}
        if not self.unanswerable:
            return files
        with np.errstate(invalid="ignore"):
            odds = np.asarray(predictions["null"], np.float64) - np.asarray(predictions["score"], np.float64)
        sure = [float(value) for value in np.clip(odds, -1e9, 1e9)]
        return files | {".null_odds.json": dict(zip(targets["id"], sure, strict=True))}


@dataclass
class Windows(OfEncoded):
    """The windows of one split's questions.

    Attributes:
        rows: the questions.
        encoded: the windows' tokens; its labels are (w, 2) positions of an answer's first and last token.
        question: (w,) the question that each window belongs to, in order.
        places: (w, 3) positions: the context's first token, the one after its last, the null position.
        characters: (total tokens, 2) where each token of a context stands in it: first character, and the one after.
        numbers: what :func:`kdexp.tasks.text.windows.cut` has counted.
    """

    rows: Questions
    encoded: Encoded
    question: np.ndarray
    places: np.ndarray
    characters: np.ndarray
    numbers: dict[str, int]

    @property
    def targets(self) -> Targets:
        """Positions of an answer's first and last token in each window."""
        labels = np.asarray(self.encoded.labels)
        return {"start": labels[:, 0], "end": labels[:, 1]}

    @property
    def truths(self) -> Targets:
        """Of each question: its id, its context, the texts of its right answers; and ``rows``, all as they are."""
        right = [] if self.rows.answers is None else [[text for text, _ in given] for given in self.rows.answers]
        return {"id": self.rows.ids, "context": self.rows.contexts, "answers": right, "rows": [self.rows]}

    @property
    def facts(self) -> dict[str, Any]:
        """How many questions the windows are of, how many were cut, and how many answers lie in no window."""
        return {"questions": len(self.rows), **{k: v for k, v in self.numbers.items() if k != "pad"}}

    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Batch:
        """See :meth:`Dataset.collate`; labels are those of :mod:`kdexp.heads.span`."""
        import torch

        batch = self.encoded.collate(index, step_seed, width)
        both = next(iter(batch.labels.values()))
        first, stop, null = torch.from_numpy(np.ascontiguousarray(self.places[index]).astype(np.int64)).unbind(1)
        assert batch.mask is not None
        place = torch.arange(batch.mask.shape[1])
        inside = (place >= first[:, None]) & (place < stop[:, None]) | (place == null[:, None])
        batch.labels = {"context": inside, "null": null}
        if self.rows.answers is not None:
            batch.labels |= {"start": both[:, 0].contiguous(), "end": both[:, 1].contiguous()}
        return batch

    def gather(self, predictions: Predictions) -> Predictions:
        """Return the best span of each question over all its windows.

        Returns:
            ``span`` (q, 2) characters, first and the one after the last, 0 0 = there is none; ``score`` (q,) its sum of
            logits, -inf likewise; ``null`` (q,) the lowest score of no answer over the question's windows.
        """
        spans, scores = np.asarray(predictions["spans"])[:, 0], np.asarray(predictions["scores"])[:, 0]
        out = np.zeros((len(self.rows), 2), np.int32)
        score = np.full(len(self.rows), -np.inf, np.float32)
        null = np.full(len(self.rows), np.inf, np.float32)
        np.minimum.at(null, self.question, np.asarray(predictions["null"], np.float32))
        for window, question in enumerate(self.question):
            if scores[window] > score[question]:
                score[question] = scores[window]
                begin, last = self.encoded.offsets[window] + spans[window]
                out[question] = self.characters[begin, 0], self.characters[last, 1]
        return {"span": out, "score": score, "null": null}
