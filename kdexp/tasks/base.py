"""The interface of a task: what is read, how it becomes a batch, what is asked, how answers are judged.

Nothing here knows texts, images or classes: a kind of data is a :class:`Dataset`, a kind of answer a
:class:`~kdexp.heads.base.Head`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kdexp.common.registry import kind
from kdexp.heads.batch import Batch, Predictions, Targets

if TYPE_CHECKING:
    from kdexp.heads.base import Head

__all__ = [
    "Answered", "Batch", "DataContext", "Dataset", "Goal", "Joined", "Predictions", "Relabelled", "Subset", "Targets",
    "Task",
]  # fmt: skip

UNLABELLED = "unlabelled"
"""Name of a split of further training rows that nobody has labelled."""


class Dataset(ABC):
    """One split: examples that become batches. Example ids are positions, 0 to n-1.

    Attributes:
        fixed: an example is the same in every batch. False for masks, crops and the like that are drawn at collation:
            a teacher's answers are then not stored.
        labelled: somebody has said what is right of its examples.
    """

    fixed: bool = True
    labelled: bool = True

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Batch:
        """Make one batch of the examples ``index``, as CPU tensors.

        Args:
            index: (B,) example ids, in the order of the batch.
            step_seed: what is drawn at random (masks, crops, flips) is a pure function of this and the example's id;
                None = as for scoring: nothing, or always the same.
            width: pad inputs to so many positions; None = to the longest example. Data that are not padded ignore it.

        Raises:
            ValueError: an example is longer than ``width``.
        """

    def in_epoch(self, seed: int, epoch: int) -> Dataset:
        """Return the split as it is trained on in one epoch, for data that are drawn anew in each (crops, flips).

        What is drawn is a pure function of these two and an example's id. Itself, unless a subclass draws.

        Args:
            seed: of the run.
            epoch: counts from 0.
        """
        return self

    @property
    @abstractmethod
    def targets(self) -> Targets:
        """The labels of all examples by name, in the order of their ids."""

    @property
    def truths(self) -> Targets:
        """What answers are scored by, an entry an example: :attr:`targets`, unless an example has several items."""
        return self.targets

    def gather(self, predictions: Predictions) -> Predictions:
        """Put together what a head kept of the items of each example; an item is an example unless a task cuts them."""
        return predictions

    @property
    def costs(self) -> np.ndarray:
        """(n,) what an example costs to compute: token counts, or ones. Batches join examples of like costs."""
        return np.ones(len(self), dtype=np.int64)

    @property
    def facts(self) -> dict[str, Any]:
        """What a result says about the split, such as how many texts were cut."""
        return {}

    def vocabulary(self) -> np.ndarray | None:
        """Return all ids that the inputs of its batches can hold; None = nobody knows, or there are no ids."""
        return None

    def specimen(self, size: int, length: int) -> Batch:
        """Return a batch to time a model with: ``size`` examples of full size (``length`` positions where padded)."""
        return self.collate(np.arange(size) % len(self))


@dataclass
class Subset(Dataset):
    """Some examples of a split as a split of their own; ids count anew.

    Attributes:
        whole: the split.
        rows: (m,) ids of the examples in it.
    """

    whole: Dataset
    rows: np.ndarray

    def __post_init__(self) -> None:
        self.fixed = self.whole.fixed

    def __len__(self) -> int:
        return len(self.rows)

    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Batch:
        """See :meth:`Dataset.collate`; what is drawn at random is that of the whole split's examples."""
        import torch

        index = np.asarray(index, dtype=np.int64)
        return replace(self.whole.collate(self.rows[index], step_seed, width), index=torch.from_numpy(index))

    def in_epoch(self, seed: int, epoch: int) -> Dataset:
        """See :meth:`Dataset.in_epoch`: what is drawn is that of the whole split's examples."""
        return replace(self, whole=self.whole.in_epoch(seed, epoch))

    def vocabulary(self) -> np.ndarray | None:
        """See :meth:`Dataset.vocabulary`: of the whole split."""
        return self.whole.vocabulary()

    @property
    def targets(self) -> Targets:
        """The labels of the chosen examples."""
        return {name: _taken(values, self.rows) for name, values in self.whole.targets.items()}

    @property
    def costs(self) -> np.ndarray:
        """(m,) their costs."""
        return self.whole.costs[self.rows]


def _taken(values: Any, rows: np.ndarray) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


@dataclass
class Relabelled(Dataset):
    """A split whose examples have other labels.

    Attributes:
        whole: the split that gives the inputs.
        labels: the new labels by name, arrays (n, ...).
    """

    whole: Dataset
    labels: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        self.fixed = self.whole.fixed

    def __len__(self) -> int:
        return len(self.whole)

    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Batch:
        """See :meth:`Dataset.collate`."""
        import torch

        labels = {name: torch.from_numpy(np.ascontiguousarray(values[index])) for name, values in self.labels.items()}
        batch = self.whole.collate(index, step_seed, width)
        return replace(batch, labels=self._beside(batch.labels) | labels)

    def _beside(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Return what stays of a batch's labels beside the new ones."""
        return {}

    def in_epoch(self, seed: int, epoch: int) -> Dataset:
        """See :meth:`Dataset.in_epoch`."""
        return replace(self, whole=self.whole.in_epoch(seed, epoch))

    def vocabulary(self) -> np.ndarray | None:
        """See :meth:`Dataset.vocabulary`: the split's own."""
        return self.whole.vocabulary()

    @property
    def targets(self) -> Targets:
        """The new labels."""
        return self.labels

    @property
    def costs(self) -> np.ndarray:
        """(n,) as the split's own."""
        return self.whole.costs

    @property
    def facts(self) -> dict[str, Any]:
        """As the split's own."""
        return self.whole.facts


@dataclass
class Answered(Relabelled):
    """A split without labels, with those that a teacher's answers stand for; what else its batches say stays."""

    def _beside(self, labels: dict[str, Any]) -> dict[str, Any]:
        """See :class:`Relabelled`: all, such as the positions that an answer is asked at."""
        return labels


@dataclass
class Joined(Dataset):
    """A labelled split and further examples of the same kind, one after the other; ids go on.

    Attributes:
        first: the labelled split; what is scored by, or counted of, the training labels is its own.
        further: the rest.
    """

    first: Dataset
    further: Dataset

    def __post_init__(self) -> None:
        self.fixed = self.first.fixed and self.further.fixed

    def __len__(self) -> int:
        return len(self.first) + len(self.further)

    def collate(self, index: np.ndarray, step_seed: int | None = None, width: int | None = None) -> Batch:
        """See :meth:`Dataset.collate`; examples of both come together in the order of ``index``."""
        import torch

        index = np.asarray(index, dtype=np.int64)
        width = width or int(self.costs[index].max())
        pieces: dict[int, Batch] = {}
        for split, begin in ((self.first, 0), (self.further, len(self.first))):
            places = np.flatnonzero((index >= begin) & (index < begin + len(split)))
            if len(places):
                batch = split.collate(index[places] - begin, step_seed, width)
                pieces |= {int(place): batch.part(slice(i, i + 1)) for i, place in enumerate(places)}
        parts = [pieces[place] for place in range(len(index))]
        one = parts[0]
        return replace(
            one,
            inputs={name: torch.cat([part.inputs[name] for part in parts]) for name in one.inputs},
            mask=None if one.mask is None else torch.cat([part.mask for part in parts if part.mask is not None]),
            labels={name: torch.cat([part.labels[name] for part in parts]) for name in one.labels},
            index=torch.from_numpy(index),
        )

    def in_epoch(self, seed: int, epoch: int) -> Dataset:
        """See :meth:`Dataset.in_epoch`: each draws by itself, so that the labelled ones are what they are alone."""
        return Joined(self.first.in_epoch(seed, epoch), self.further.in_epoch(seed, epoch))

    @property
    def targets(self) -> Targets:
        """The labels of both."""
        both = self.first.targets, self.further.targets
        return {
            name: np.concatenate([values, both[1][name]])
            if isinstance(values, np.ndarray)
            else [*values, *both[1][name]]
            for name, values in both[0].items()
        }

    @property
    def truths(self) -> Targets:
        """What the labelled ones are scored by."""
        return self.first.truths

    @property
    def costs(self) -> np.ndarray:
        """(n,) the costs of both."""
        return np.concatenate([self.first.costs, self.further.costs])

    @property
    def facts(self) -> dict[str, Any]:
        """As the labelled split's."""
        return self.first.facts

    def vocabulary(self) -> np.ndarray | None:
        """See :meth:`Dataset.vocabulary`."""
        both = self.first.vocabulary(), self.further.vocabulary()
        return None if both[0] is None or both[1] is None else np.union1d(both[0], both[1])

    def specimen(self, size: int, length: int) -> Batch:
        """See :meth:`Dataset.specimen`: of the labelled split."""
        return self.first.specimen(size, length)


@dataclass(frozen=True)
class DataContext:
    """What a task is told when it is asked for its data.

    Attributes:
        model: path or hub id of the model whose tokenizer or image processor reads the data.
        options: keyword arguments to load from there with (a revision, or local files only).
        vocab_size: ids that the teacher's embeddings know; None where it has none.
        positions: how long an input the teacher can read; None = nothing limits it.
        max_length: of the recipe: positions after which an input is cut.
        root: local data root, or None.
        heldout: share of train that is set aside for selection, 0 for none.
        cache: folder for what is costly to make.
        say: writes a line to the run's log.
        who: whose model it is, for messages.
        place: the group that says where it is, likewise.
    """

    model: str
    options: dict[str, Any]
    vocab_size: int | None
    positions: int | None
    max_length: int
    root: str | None
    heldout: float
    cache: Path
    say: Callable[[str], None] = print
    who: str = "teacher"
    place: str = "teacher"


@dataclass
class Goal(ABC):
    """What a model shall answer, and how its answers are judged. A task is a goal with data of its own.

    Attributes:
        name: the name in tables.
        metrics: every metric that the literature uses; all are recorded.
        metric: the one that tables show and selection uses (higher is better); one of ``metrics``.
    """

    name: str

    metrics: list[str] = field(default_factory=lambda: ["accuracy"], kw_only=True)
    metric: str = field(default="accuracy", kw_only=True)

    @property
    @abstractmethod
    def head(self) -> Head:
        """What a model answers."""

    @abstractmethod
    def evaluate(self, predictions: Predictions, targets: Targets) -> dict[str, float]:
        """Return all ``metrics`` as fractions.

        Args:
            predictions: what the head keeps of every example (:meth:`Head.predictions`), as numpy arrays (n, ...), or
                lists of n arrays where shapes differ.
            targets: the split's labels (:attr:`Dataset.targets`).
        """

    def trivial(self, train: Targets, targets: Targets) -> dict[str, float]:
        """Return all metrics of the trivial answer, made of the labels of train alone."""
        return self.evaluate(self.head.trivial(train, targets), targets)

    def contributions(self, predictions: Predictions, targets: Targets) -> dict[str, np.ndarray]:
        """Return what every example contributes to a metric, by name: (n,) arrays whose mean is the metric.

        Kept beside the predictions, for statistics that cannot make them of logits and class ids.
        """
        return {}

    def published(self, predictions: Predictions, targets: Targets) -> dict[str, Any]:
        """Return what the field's own tools read of the predictions: end of a file's name -> what JSON it holds."""
        return {}


@kind
@dataclass
class Task(Goal):
    """Data, inputs, head and metrics of one problem. Settings come from the YAML of the same name.

    Subclasses are dataclasses; ``train`` is split deterministically into ``train`` and ``heldout`` so that model
    selection never touches ``validation``.

    Class attributes:
        fixed: an example is the same in every batch, as :attr:`Dataset.fixed`.
        locations: settings that only say *where* the data are. Results are addressed by the data's content instead.
        reads: what a model must be able to read, as families of models say it: ``texts`` or ``images``.
        idle: settings of recipes that mean nothing to its data: they are taken as their defaults.
        by_example: its examples are the same, under the same ids, whatever tokenizer cuts their texts.
    """

    fixed: ClassVar[bool] = True
    locations: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[str] = "texts"
    idle: ClassVar[tuple[str, ...]] = ()
    by_example: ClassVar[bool] = False

    def marks(self, root: str | None) -> list[tuple[str, str]]:
        """Say why what is scored is less, or other, than what the name promises; [] = it is that.

        Returns:
            What the name in tables ends in (``partial``), and the sentence for the reader of a score.
        """
        return []

    def shown_name(self, root: str | None) -> str:
        """Name for tables: :attr:`name`, and the names of its :meth:`marks`."""
        return "_".join([self.name, *dict.fromkeys(mark for mark, _ in self.marks(root))])

    def note(self, root: str | None) -> str | None:
        """What a reader of the score must know about the data, or None."""
        said = [sentence for _, sentence in self.marks(root)]
        return f"{'; '.join(said)}; never compare with published scores" if said else None

    @abstractmethod
    def problems(self, root: str | None) -> list[str]:
        """Everything that would stop :meth:`datasets`, as sentences for people (data root missing, ...).

        Cheap: looks at files' existence, loads nothing, never touches a network.
        """

    def unusable(self, context: DataContext) -> list[str]:
        """Everything wrong with what is on this machine, as sentences: files' contents, the teacher's tokenizer.

        Asked before anything is loaded, for every point of a grid: what costs time is done once a process, and not at
        all where ``context.cache`` says that it was done. Touches no network and writes nothing.
        """
        return []

    def record(self, root: str | None, cache: Path) -> list[str]:
        """What was read, in lines for the log (rows, classes and how often each), so that a wrong reading is seen."""
        return []

    def unseen(self, context: DataContext, split: str, file: Path | None = None) -> Dataset:
        """Return rows whose labels, if there are any, are not looked at: a test split, or a file of new rows.

        Args:
            context: its ``heldout`` means nothing here; its ``model`` is the one that will be asked.
            split: name of the rows, as the task's folder or the hub has them.
            file: where they are; None = where the task's data are.

        Raises:
            ValueError: there are none, or they cannot be read.
        """
        raise ValueError(f"task={self.name} has no rows beside its own: it reads no files")

    def sheet(self, predictions: Predictions, data: Dataset, split: str) -> tuple[str, str]:
        """Return predictions as the field's leaderboard takes them: the file's name, and its text.

        Args:
            predictions: of :meth:`unseen` rows.
            data: these rows.
            split: their name.

        Raises:
            ValueError: nobody takes any.
        """
        raise ValueError(f"task={self.name} has no form in which predictions are handed in")

    def save_preprocessor(self, context: DataContext, folder: Path) -> None:
        """Write what makes inputs of raw examples (a tokenizer, an image processor) into a saved model's folder.

        With it the folder is complete: transformers' ``pipeline`` needs nothing else.
        """

    def pin(self, root: str | None, cache: Path, ask: bool) -> dict[str, Any]:
        """Return settings that fix which state of a hub is read, for whoever carries the run out; {} if none is.

        Args:
            root: local data root, or None.
            cache: folder for what is costly to gather.
            ask: False: take what is known here; the network stays alone.

        Raises:
            ValueError: the data cannot be had, in a sentence.
        """
        return {}

    def here(self, root: str | None, cache: Path) -> bool:
        """Tell whether :meth:`datasets` needs no network."""
        return True

    @property
    def has_further(self) -> bool:
        """There are training rows that nobody has labelled, beside labelled ones."""
        return False

    def further(self, root: str | None, cache: Path | None = None) -> str | None:
        """Return the sha256 (hex) of training rows that nobody has labelled, beside labelled ones; None = no such."""
        return None

    @abstractmethod
    def fingerprint(self, root: str | None, cache: Path | None = None) -> str:
        """sha256 (hex) of the content of all splits; the same rows elsewhere give the same value. No torch.

        With ``cache`` the value is remembered there for as long as the source files do not change.
        """

    @abstractmethod
    def datasets(self, context: DataContext) -> dict[str, Dataset]:
        """Return the splits: ``train``, ``heldout`` (if anything is held out), ``validation`` and ``validation_*``.

        Training rows that nobody has labelled, beside labelled ones, are a split of their own, :data:`UNLABELLED`. A
        split whose ``labelled`` is false gets the labels that the teacher's answers stand for.

        What is costly is done once below ``context.cache``; safe when many processes ask at once (one works, the
        others wait and read).

        Raises:
            ValueError: data or the teacher's tokenizer cannot be used, in a sentence for people.
        """
