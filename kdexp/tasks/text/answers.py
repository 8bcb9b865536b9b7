"""How SQuAD's official evaluation compares a written answer with the right ones (Rajpurkar et al. 2016, 2018)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation)


def normalised(text: str) -> str:
    """Return a text in lower case, without ASCII punctuation, without English articles, with single spaces."""
    bare = "".join(sign for sign in text.lower() if sign not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", bare).split())


def exact_match(answer: str, right: str) -> float:
    """Return 1 for equal normalised texts, else 0."""
    return float(normalised(answer) == normalised(right))


def f1(answer: str, right: str, empty: bool = False) -> float:
    """Return F1 of the words of two normalised texts.

    Args:
        empty: two empty texts are equal (SQuAD 2.0); otherwise they have no word in common (SQuAD 1.1).
    """
    words, wanted = normalised(answer).split(), normalised(right).split()
    if empty and not (words and wanted):
        return float(words == wanted)
    common = sum((Counter(words) & Counter(wanted)).values())
    return 2 * common / (len(words) + len(wanted)) if common else 0.0


def best(answer: str, right: Sequence[str], empty: bool = False) -> tuple[float, float]:
    """Return exact match and F1 of an answer with whichever right one fits best.

    Args:
        right: the right answers; with ``empty``, none that is more than articles and punctuation = the empty text is
            right.
    """
    if empty:
        right = [text for text in right if normalised(text)] or [""]
    return max(exact_match(answer, text) for text in right), max(f1(answer, text, empty) for text in right)
