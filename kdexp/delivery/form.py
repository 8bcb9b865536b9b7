"""The interface of a form: how a model is written so that something else than its training code runs it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from kdexp.delivery import forms
from kdexp.heads.base import Head

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdexp.heads.batch import Batch

Inputs = Mapping[str, "Tensor"]
Runner = Callable[[Inputs], "dict[str, Tensor]"]
"""Answers a batch: a model's inputs by name, (B, L) int64, to its head's outputs by name, float32."""
Sample = Callable[[], "Iterator[Batch]"]
"""Begins anew to hand out batches of the task's own texts."""


class Form(ABC):
    """A way to run a model.

    Class attributes:
        purpose: a line for ``--help`` and the table's legend.
        modules: what must be importable; none of it is a dependency of kdexp.
        extra: the extra of the package that brings them; '' = none is needed.
        made_of: the form whose files this one is made from; '' = the model itself.
        calibrated: :meth:`write` looks at examples of train.
    """

    purpose: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    made_of: ClassVar[str] = ""
    calibrated: ClassVar[bool] = False

    @abstractmethod
    def write(self, model: nn.Module, head: Head, folder: Path, source: Path, sample: Sample) -> None:
        """Write what :meth:`load` reads, beside a configuration and a tokenizer that are there already.

        Args:
            model: as transformers alone loads it, float32, on the CPU, in evaluation.
            head: says which of its outputs are wanted.
            folder: of this form.
            source: folder of the form :attr:`made_of`, or of the model.
            sample: batches of the task's own texts, of train where the form is :attr:`calibrated`.

        Raises:
            ValueError: the model cannot be brought into this form, in a sentence.
        """

    @abstractmethod
    def load(self, folder: Path, head: Head, threads: int) -> Runner:
        """Return what answers, on the CPU.

        Args:
            folder: as :meth:`write` left it.
            head: of the model.
            threads: of its own that it may use.
        """

    def missing(self) -> str:
        """Return what is not installed, as a sentence; '' = nothing."""
        lacking = [name for name in self.modules if find_spec(name) is None]
        if not lacking:
            return ""
        return f"needs {' and '.join(lacking)}: pip install 'kdexp[{self.extra}]'"

    def files(self, folder: Path) -> list[Path]:
        """Return the files that hold the model's weights."""
        return [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".onnx", ".data", ".bin")]


def form(name: str) -> Form:
    """Return a form by the name of its file."""
    made: Form = importlib.import_module(f"{forms.__name__}.{name}").FORM
    return made
