"""A tag for every word: names, parts of speech. Words are cut into pieces; a tag belongs to a word."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdexp.common.registry import build
from kdexp.config.schema import Text
from kdexp.heads.base import Head
from kdexp.tasks import shares as counting
from kdexp.tasks.base import Batch, Dataset, Predictions, Targets
from kdexp.tasks.text import entities, sentences, shown
from kdexp.tasks.text.arrays import Parts
from kdexp.tasks.text.encoding import Encoded, OfEncoded, of_arrays
from kdexp.tasks.text.records import RecordTask
from kdexp.tasks.text.sentences import Sentences

METRICS = ("f1", "precision", "recall", "accuracy")
CHUNK = 1024
"""Sentences a call of the tokenizer."""


@dataclass
class TokenTask(RecordTask[Sentences]):
    """Say of every word which tag it has.

    A sentence that is longer than an input is read in several, without a word lost. f1, precision and recall count
    whole entities (seqeval's definition); accuracy counts words.

    Attributes:
        label_names: the tags in the order of their ids; for entities ``O``, ``B-TYPE``, ``I-TYPE``.
        words, tags: columns with lists, in files that have columns.
        pieces: which pieces of a word are trained and distilled: ``first``, or ``all`` (its tag stands at each; the
            inside form at later ones). The first piece's answer is the word's.
    """

    label_names: list[str] = field(default_factory=list)
    words: Text = "tokens"
    tags: Text = "ner_tags"
    pieces: Literal["first", "all"] = "first"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: naming everything that does not fit.
        """
        self.check_places()
        names = list(self.label_names)
        wrong = []
        if len(names) < 2 or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
            wrong.append(f"task.label_names={names}: name at least two tags, each once, ordered by their ids")
        for name in dict.fromkeys([*self.metrics, self.metric]):
            if name not in METRICS:
                wrong.append(f"metric {name} does not exist for task={self.name}; choose among: {', '.join(METRICS)}")
        odd = [n for n in names if n != "O" and (entities.parts(n)[0] not in entities.PREFIXES or "-" not in str(n))]
        if odd and set(self.metrics) & {"f1", "precision", "recall"}:
            wrong.append(
                "metrics f1, precision and recall count entities, whose tags are O, B-TYPE, I-TYPE (E-, S-), and "
                f"task.label_names has {odd[0]!r}: use task.metrics=[accuracy] task.metric=accuracy"
            )
        if self.metric not in self.metrics:
            wrong.append(f"task.metric={self.metric} is not among task.metrics={list(self.metrics)}")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def head(self) -> Head:
        """A tag at every position."""
        head: Head = build({"_target_": "kdexp.heads.tokens.Tokens", "label_names": list(self.label_names)})
        return head

    # --- rows -----------------------------------------------------------------------------------------------------

    def columns_asked(self, labelled: bool = True) -> dict[str, list[str]]:
        """See :meth:`Located.columns_asked`."""
        return {"words": [self.words], **({"tags": [self.tags]} if labelled else {})}

    def _column_problems(self, path: Path, labelled: bool = True) -> list[str]:
        return [] if path.suffix in sentences.CONLL else super()._column_problems(path, labelled)

    def reading(self) -> list[Any]:
        """See :meth:`RecordTask.reading`."""
        return [self.label_names, self.words, self.tags]

    def read(self, path: Path, labelled: bool = True) -> Sentences:
        """See :meth:`RecordTask.read`."""
        return sentences.read(path, (self.words, self.tags), list(self.label_names), labelled)

    def counted(self, rows: Sentences) -> dict[str, Any]:
        """Return sentences, words, and how often each tag stands there."""
        tags = np.concatenate(rows.tags or [np.zeros(0, np.int64)])
        counts = np.bincount(tags, minlength=len(self.label_names)).tolist()
        return {"rows": len(rows), "words": len(tags), **dict(zip(self.label_names, counts, strict=True))}

    def leaks(self, splits: Any) -> list[str]:
        """Name tags that no training word has, and sentences that training shares with what is scored."""
        seen = set(np.unique(np.concatenate(splits["train"].tags)).tolist())
        lost = [name for i, name in enumerate(self.label_names) if i not in seen]
        lines = (
            [f"task {self.name}: no training word has the tag {', '.join(lost)}: no model can learn it"] if lost else []
        )
        train = set(splits["train"].texts())
        for name, rows in splits.items():
            both = sum(text in train for text in rows.texts())
            if name != "train" and both:
                lines.append(f"task {self.name}: {both} sentences of {name} are in train too: no clean score")
        return lines

    # --- pieces ---------------------------------------------------------------------------------------------------

    def too_short(self, reader: Any, max_length: int) -> str:
        """See :meth:`RecordTask.too_short`."""
        special = reader.num_special_tokens_to_add(pair=False)
        return (
            ""
            if max_length > special
            else f"max_length={max_length}: at least {special + 1} ({special} special tokens)."
        )

    def encoding(self) -> list[Any]:
        """See :meth:`RecordTask.encoding`."""
        return [self.pieces, self.label_names]

    def encoded(self, reader: Any, max_length: int, rows: Sentences) -> Parts:
        """See :meth:`RecordTask.encoded`: arrays as :class:`Pieces` has them."""
        typed = "token_type_ids" in reader.model_input_names
        tokens: list[int] = []
        types: list[int] = []
        lengths: list[int] = []
        owner: list[int] = []
        word: list[int] = []
        heads: list[bool] = []
        for begin in range(0, len(rows), CHUNK):
            chunk = rows.words[begin : begin + CHUNK]
            out = reader(
                [" ".join(words) for words in chunk], truncation=True, max_length=max_length,
                return_overflowing_tokens=True, return_offsets_mapping=True, padding=False, return_token_type_ids=typed,
            )  # fmt: skip
            starts = [np.cumsum([0, *(len(word) + 1 for word in words[:-1])]) for words in chunk]
            before = (-1, -1)
            for window, source in enumerate(out["overflow_to_sample_mapping"]):
                owner.append(begin + source)
                lengths.append(len(out["input_ids"][window]))
                tokens += out["input_ids"][window]
                types += out["token_type_ids"][window] if typed else []
                for kind, (one, end) in zip(out.sequence_ids(window), out["offset_mapping"][window], strict=True):
                    real = kind == 0 and end > one
                    number = int(np.searchsorted(starts[source], end - 1, "right")) - 1 if real else -1
                    word.append(number)
                    heads.append(real and (source, number) != before)
                    before = (source, number) if real else before
        offsets = np.cumsum([0, *lengths], dtype=np.int64)
        places, first = np.array(word, np.int32), np.array(heads, bool)
        asked = first if self.pieces == "first" else places >= 0
        tags = (
            self._tags(rows, np.repeat(np.array(owner), lengths), places, first)
            if rows.tags is not None
            else places * 0
        )
        arrays: dict[str, np.ndarray] = {
            "tokens": np.array(tokens, np.int32),
            **({"types": np.array(types, np.int8)} if typed else {}),
            "offsets": offsets, "labels": np.array(owner, np.int64), "tags": tags.astype(np.int16),
            "word": places, "first": first, "asked": asked,
        }  # fmt: skip
        lost = sum(len(words) for words in rows.words) - int(first.sum())
        return arrays, {"pad": int(reader.pad_token_id or 0), "lost_words": lost}

    def _tags(self, rows: Sentences, owner: np.ndarray, places: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Return the tag of each piece: its word's, in the inside form at later pieces."""
        assert rows.tags is not None
        names = list(self.label_names)
        inside = {i: names.index(f"I-{name[2:]}") for i, name in enumerate(names)
                  if name.startswith("B-") and f"I-{name[2:]}" in names}  # fmt: skip
        out = np.zeros(len(places), np.int64)
        for place in np.flatnonzero(places >= 0):
            tag = int(rows.tags[owner[place]][places[place]])
            out[place] = tag if first[place] else inside.get(tag, tag)
        return out

    def dataset(self, rows: Sentences, values: dict[str, np.ndarray], numbers: dict[str, int]) -> Pieces:
        """See :meth:`RecordTask.dataset`."""
        encoded = of_arrays(values, numbers["pad"], 0)
        tags, word, first, asked = (values[name] for name in ("tags", "word", "first", "asked"))
        return Pieces(rows, encoded, tags, word, first, asked, numbers["lost_words"])

    # --- scores ---------------------------------------------------------------------------------------------------

    def _named(self, tags: Any) -> list[list[str]]:
        return [[self.label_names[int(tag)] for tag in row] for row in tags]

    def evaluate(self, predictions: Predictions, targets: Targets) -> dict[str, float]:
        """Return entity precision, recall and F1 over all sentences, and the accuracy of words."""
        given, right = predictions["tags"], targets["tags"]
        found = {"accuracy": float(np.mean(np.concatenate(given) == np.concatenate(right)))}
        if set(self.metrics) - {"accuracy"}:
            totals = entities.counts(self._named(given), self._named(right)).sum(axis=0)
            found |= dict(
                zip(("precision", "recall", "f1"), map(float, counting.precision_recall_f1(totals)), strict=True)
            )
        return {name: found[name] for name in self.metrics}

    def contributions(self, predictions: Predictions, targets: Targets) -> dict[str, np.ndarray]:
        """Return what each sentence contributes: the jackknife's share, as no metric here is a mean over sentences."""
        given, right = predictions["tags"], targets["tags"]
        hits = np.array([[(a == b).sum(), len(b)] for a, b in zip(given, right, strict=True)], np.float64)
        without = hits.sum(axis=0) - hits
        shares = {"accuracy": self._share(hits.sum(axis=0), without)}
        if set(self.metrics) - {"accuracy"}:
            rows = entities.counts(self._named(given), self._named(right))
            totals = rows.sum(axis=0)
            pairs = zip(counting.precision_recall_f1(totals), counting.precision_recall_f1(totals - rows), strict=True)
            for name, (whole, rest) in zip(("precision", "recall", "f1"), pairs, strict=True):
                shares[name] = counting.jackknife(float(whole), rest)
        return {name: shares[name] for name in self.metrics}

    @staticmethod
    def _share(whole: np.ndarray, without: np.ndarray) -> np.ndarray:
        return counting.jackknife(float(whole[0] / whole[1]), without[:, 0] / np.maximum(without[:, 1], 1))

    def published(self, predictions: Predictions, targets: Targets) -> dict[str, Any]:
        """Return some sentences with their entities, for reports; nothing where tags are no entities."""
        if set(self.metrics) <= {"accuracy"}:
            return {}
        given, right = predictions["tags"], targets["tags"]

        def example(i: int) -> dict[str, Any]:
            words: list[str] = targets["rows"][0].words[i]
            starts = np.cumsum([0, *(len(word) + 1 for word in words)]).tolist()
            marks = [
                [[starts[one], starts[last + 1] - 1, kind] for kind, one, last in entities.entities(tags)]
                for tags in self._named([right[i], given[i]])
            ]
            return {"title": "", "text": " ".join(words), "right": marks[0], "answer": marks[1]}

        return {shown.ENDING: shown.document("table", len(given), example)}

    def sheet(self, predictions: Predictions, data: Dataset, split: str) -> tuple[str, str]:
        """See :meth:`Task.sheet`: a word and its tag on a line, sentences apart by an empty line."""
        assert isinstance(data, Pieces)
        pairs = zip(data.rows.words, self._named(predictions["tags"]), strict=True)
        blocks = ("\n".join(f"{word} {tag}" for word, tag in zip(words, tags, strict=True)) for words, tags in pairs)
        return f"{self.name}.{split}.conll", "\n\n".join(blocks) + "\n"


@dataclass
class Pieces(OfEncoded):
    """The inputs of one split's sentences; a sentence that is too long makes several.

    Attributes:
        rows: the sentences.
        encoded: the inputs' tokens; its labels are (w,) the sentence that each belongs to.
        tags: (total tokens,) the tag at each piece.
        word: (total tokens,) the word in its sentence, -1 at special tokens.
        first: (total tokens,) it is the word's first piece.
        asked: (total tokens,) answers are asked here.
        lost: words that have no piece at all.
    """

    rows: Sentences
    encoded: Encoded
    tags: np.ndarray
    word: np.ndarray
    first: np.ndarray
    asked: np.ndarray
    lost: int

    @property
    def targets(self) -> Targets:
        """The tags of each input's pieces."""
        return {"tags": np.split(np.asarray(self.tags), self.encoded.offsets[1:-1])}

    @property
    def truths(self) -> Targets:
        """The tags of each sentence's words; and ``rows``, all sentences as they are."""
        return {"tags": self.rows.tags or [], "rows": [self.rows]}

    @property
    def facts(self) -> dict[str, Any]:
        """How many sentences, and words that no piece stands for (they count as the first tag)."""
        return {"sentences": len(self.rows), "lost_words": self.lost}

    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Batch:
        """See :meth:`Dataset.collate`; labels are those of :mod:`kdexp.heads.tokens`."""
        import torch

        batch = self.encoded.collate(index, step_seed, width)
        assert batch.mask is not None
        tags, asked = np.zeros(batch.mask.shape, np.int64), np.zeros(batch.mask.shape, bool)
        for row, i in enumerate(index):
            part = slice(self.encoded.offsets[i], self.encoded.offsets[i + 1])
            length = part.stop - part.start
            tags[row, :length], asked[row, :length] = self.tags[part], self.asked[part]
        batch.labels = {"asked": torch.from_numpy(asked)}
        if self.rows.tags is not None:
            batch.labels["tags"] = torch.from_numpy(tags)
        return batch

    def gather(self, predictions: Predictions) -> Predictions:
        """Return the tag of each sentence's words: what was answered at their first pieces."""
        out = [np.zeros(len(words), np.int16) for words in self.rows.words]
        for i, sentence in enumerate(np.asarray(self.encoded.labels)):
            part = slice(self.encoded.offsets[i], self.encoded.offsets[i + 1])
            first = np.flatnonzero(self.first[part])
            out[sentence][self.word[part][first]] = predictions["tags"][i][first]
        return {"tags": out}
