"""One of several answers, each a text of its own: a score for every text, a softmax over those of one question.

Legend: B questions, K answers each. The model is a sequence classifier of one output that reads B*K texts, so that
objectives on hidden states and attention see texts like any others.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from kdexp.heads.base import Head
from kdexp.heads.batch import Predictions, Targets
from kdexp.heads.classification import Classification, most_frequent


class Choices(Classification):
    """Scores (B, K) of the answers to a question.

    Args:
        choices: K.
    """

    name: ClassVar[str] = "choices"
    abilities: ClassVar[frozenset[str]] = frozenset({"examples"})

    def __init__(self, choices: int) -> None:
        super().__init__([])
        self.choices = choices

    @property
    def width(self) -> int:
        """One number a text."""
        return 1

    def model_config(self) -> dict[str, Any]:
        """Return one output a text; nothing is computed of labels by the model itself."""
        return {"num_labels": 1}  # transformers reads no config of one label with a problem_type of several

    def outputs(self, model_output: Any) -> dict[str, Tensor]:
        """Return the scores of each question's answers, (B, K), of logits (B*K, 1)."""
        return {"logits": model_output.logits.reshape(-1, self.choices)}

    def trivial(self, train: Targets, like: Targets) -> Predictions:
        """Return all weight on the place where train's right answers stand most often."""
        return most_frequent(train, like, self.choices)

    def small(self, width: int, dropout: float) -> Any:
        """See :meth:`Head.small`: there is none."""
        return Head.small(self, width, dropout)
