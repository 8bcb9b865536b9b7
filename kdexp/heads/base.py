"""The interface of a head: everything that depends on *what* a model answers, so that nothing else asks.

Legend: B examples, C classes, N units (what a loss averages over: examples, tokens, ...).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kdexp.common.registry import kind
from kdexp.heads.batch import Batch, Features, Predictions, Targets
from kdexp.heads.common import wide

if TYPE_CHECKING:
    from torch import Tensor, nn

ABILITIES = {
    "classes": "a distribution over classes",
    "decisions": "logits (B, C) of classes or labels, each of which can be taken as a yes or no",
    "distributions": "distributions over classes, bins or positions",
    "examples": "one row of logits (B, C) an example",
    "positions": "logits at every position (B, L, ...)",
    "vectors": "one vector an example",
    "small": "a small head of the same kind on a layer's hidden states",
}
"""What a head may be able to do, in words for people. Objectives say what they need (``Objective.asks``)."""

CLASSIFIER = "AutoModelForSequenceClassification"
"""Transformers' class of models that answer with one row of logits a text."""
LANGUAGE = ("AutoModelForMaskedLM", "AutoModelForCausalLM")
"""Transformers' classes of models that answer with the head that they were pretrained with."""

REDUCTIONS = ("batchmean", "mean", "sum")
FORMS = ("kl", "soft_ce")


def unanswered(asks: Sequence[str], head: Head) -> str:
    """Say what is asked of a head that cannot give it, as the rest of a sentence; '' = everything fits.

    Args:
        asks: keys of :data:`ABILITIES`.
        head: the task's.
    """
    lacking = [ABILITIES[name] for name in asks if name not in head.abilities]
    return f"needs {' and '.join(lacking)}, which the head {head.name} does not have" if lacking else ""


@kind
class Head(ABC):
    """What a model answers. A head owns no weights: those are the model's, made by the class that it names.

    Class attributes:
        name: of the kind, as tables and messages say it.
        auto_class: transformers' class that makes a model with this head.
        abilities: keys of :data:`ABILITIES`.
        unused: arguments of :meth:`soft_loss` that have no meaning for its answers.
        names: the outputs that it reads from a model, keys of :meth:`outputs`.
        weights: path of its weights in a model; '' = where the family keeps its classifier.
        causal: it asks for what comes next, which a model that reads both ways would see.
        switches: further arguments of a model's forward pass.
        together: examples that are scored at once, at most.
        method: the one method that trains it; '' = any of them.
    """

    name: ClassVar[str]
    auto_class: ClassVar[str]
    abilities: ClassVar[frozenset[str]] = frozenset()
    unused: ClassVar[frozenset[str]] = frozenset()
    names: ClassVar[tuple[str, ...]] = ("logits",)
    weights: ClassVar[str] = ""
    causal: ClassVar[bool] = False
    switches: ClassVar[Mapping[str, Any]] = {}
    together: ClassVar[int] = 64
    method: ClassVar[str] = ""

    @property
    def label_names(self) -> list[str]:
        """The classes in the order of their ids; [] where there are none."""
        return []

    @property
    def width(self) -> int:
        """Numbers that the head gives a unit: C; 1 for a score."""
        return len(self.label_names)

    @property
    def reads_padding(self) -> bool:
        """Its losses look at what a model answers at padding: a teacher's answers are then not stored."""
        return False

    @property
    def of_classifier(self) -> bool:
        """It reads the logits of a sequence classifier and nothing else of a model's output.

        Then a model whose classifier looks at the first token only need not run its last layer for the others.
        """
        return self.auto_class == CLASSIFIER and self.names == ("logits",) and type(self).outputs is Head.outputs

    @abstractmethod
    def model_config(self) -> dict[str, Any]:
        """Return the values of the model's configuration that make this head."""

    def of_teacher(self, config: Any) -> dict[str, Any]:
        """Return the values of a student's configuration that follow from its teacher's, before it is cut to size."""
        return {}

    def outputs(self, model_output: Any) -> dict[str, Tensor]:
        """Return the tensors :attr:`names` of what a model returned."""
        return {name: getattr(model_output, name) for name in self.names}

    @abstractmethod
    def loss(self, outputs: Features, batch: Batch, reduction: str = "mean") -> Tensor:
        """Return the task's own loss, a float32 scalar: ``mean`` or ``sum`` over units."""

    @abstractmethod
    def soft_loss(
        self,
        student: Features,
        teacher: Features,
        batch: Batch,
        temperature: float = 1.0,
        form: str = "kl",
        reduction: str = "batchmean",
        times_T2: bool = True,
    ) -> Tensor:
        """Return how far the student's answer is from the teacher's, which is a constant; a float32 scalar.

        Args:
            student, teacher: outputs of both models.
            batch: says which positions are real.
            temperature: divides both sides' logits, where the answer is a distribution.
            form: ``kl`` or ``soft_ce`` (same gradient, other value), likewise.
            reduction: ``batchmean`` = over units, ``mean`` = over units and classes, ``sum``.
            times_T2: multiply by the temperature's square.
        """

    def squared_error(self, student: Features, teacher: Features, batch: Batch, factor: float | Tensor = 1.0) -> Tensor:
        """Return the mean over output numbers of (student - factor * teacher)^2, the teacher constant.

        A head whose outputs are padded overrides this, so that padding does not count.
        """
        gaps = [wide(student[name]) - factor * wide(teacher[name].detach()) for name in self.names]
        means = [gap.square().mean() for gap in gaps]
        return sum(means[1:], means[0]) / len(means)

    def places(self, batch: Batch) -> Tensor | None:
        """Return the positions (B, M) at which it is asked; None = its answer is the model's as it is.

        A model's own language head is then run there only (:mod:`kdexp.models.places`), and its logits are (B, M, V).
        """
        return None

    def units(self, batch: Batch) -> Tensor:
        """Return how many units :meth:`loss` averages over in this batch, a scalar tensor; examples by default."""
        return batch.index.new_tensor(len(batch))

    def predictions(self, outputs: Features, batch: Batch) -> dict[str, Tensor]:
        """Return what is kept of each example for scoring, by name, each (B, ...): the outputs in float32.

        Rows of different batches may differ in shape (lengths): they are then kept as a list of arrays.
        """
        return {name: outputs[name].float() for name in self.names}

    @property
    def decides(self) -> bool:
        """A model's answers can stand for labels: :meth:`decided` is there."""
        return type(self).decided is not Head.decided

    def decided(self, outputs: Features, batch: Batch) -> dict[str, Tensor]:
        """Return the labels that a model's answers stand for, as :meth:`loss` reads them, each (B, ...).

        Raises:
            NotImplementedError: this kind of head has none.
        """
        raise NotImplementedError(f"the answers of the head {self.name} stand for no labels")

    @abstractmethod
    def trivial(self, train: Targets, like: Targets) -> Predictions:
        """Return the predictions of one who knows the training labels and never looks at an input.

        Args:
            train: labels of the training split.
            like: labels of the split that is predicted (for its size; its content is not looked at).
        """

    def small(self, width: int, dropout: float) -> nn.Module:
        """Make a small head of this kind for hidden states (B, L, ``width``); it returns outputs by name.

        Raises:
            ValueError: this kind of head has none.
        """
        raise ValueError(f"the head {self.name} has no small form for hidden states of a layer")


class Labelled(Head):
    """A head whose answers have names.

    Args:
        label_names: of classes, tags or labels, in the order of their ids.
    """

    def __init__(self, label_names: list[str]) -> None:
        self._label_names = list(label_names)

    @property
    def label_names(self) -> list[str]:
        """The names in the order of their ids."""
        return self._label_names

    def model_config(self) -> dict[str, Any]:
        """Return number and names of the answers."""
        names = self.label_names
        return {"num_labels": len(names), **numbered(names)}


def numbered(names: Sequence[str]) -> dict[str, Any]:
    """Return a model configuration's ``id2label`` and ``label2id`` of names in the order of their ids."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
