"""Toy models' features: no model is needed to test an objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf

from kdexp.config import choices
from kdexp.heads.batch import Batch
from kdexp.heads.classification import Classification
from kdexp.heads.embedding import Embedding
from kdexp.heads.regression import Regression
from kdexp.objectives import layer_maps
from kdexp.objectives.base import Context, Objective, Shape

CONF = Path(__file__).resolve().parents[2] / "conf"
LENGTHS = (6, 3, 4, 2)
NAMES = choices.names(CONF / "objective")


class Toy:
    """Two imaginary models and one batch of them; float64, so that equalities are sharp.

    Args:
        student, teacher: sizes.
        classes: C; 1 means that labels are scores.
    """

    def __init__(self, student: Shape | None = None, teacher: Shape | None = None, classes: int = 4):
        self.student, self.teacher = student or Shape(2, 8, 2), teacher or Shape(4, 8, 2)
        self.classes, self.answer = classes, "logits"
        self.generator = torch.Generator().manual_seed(1)

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def features(self, shape: Shape, lengths: Sequence[int] = LENGTHS, pad_to: int | None = None) -> dict[str, Any]:
        b, n = len(lengths), pad_to or max(lengths)
        out = {self.answer: self.random(b, self.classes if self.answer == "logits" else self.teacher.hidden_size)}
        for j in range(shape.num_layers + 1):
            out[f"hidden.{j}"] = self.random(b, n, shape.hidden_size)
            for kind in ("query", "key", "value") if j else ():
                out[f"{kind}.{j}"] = self.random(b, shape.num_heads, n, shape.hidden_size // shape.num_heads)
        return {name: value.requires_grad_() for name, value in out.items()}

    def batch(self, lengths: Sequence[int] = LENGTHS, pad_to: int | None = None) -> Batch:
        n = pad_to or max(lengths)
        mask = torch.tensor([[1] * m + [0] * (n - m) for m in lengths])
        labels = self.labels()[: len(lengths)]
        return Batch({}, mask, {"label": labels}, torch.arange(len(lengths)))

    def labels(self) -> torch.Tensor:
        if self.classes == 1:
            return torch.tensor([0.5, 3.0, 4.2, 1.0])
        return torch.tensor([0, 1, 1, 0, 2, 2, 0, 1, 2, 0, 1, 2])

    def setup(self, objective: Objective, chosen: Any = "auto", stage_one: bool = True) -> Objective:
        pairs = layer_maps.resolve(chosen, type(objective), self.student.num_layers, self.teacher.num_layers)
        head = Regression() if self.classes == 1 else Classification([str(c) for c in range(self.classes)])
        if "vectors" in objective.asks and self.classes > 1:
            head, self.answer = Embedding(), "embedding"
        context = Context(self.student, self.teacher, pairs, head, 12, {"label": self.labels().numpy()})
        torch.manual_seed(0)
        objective.setup(context)
        if stage_one and getattr(objective, "teacher_filter", None) == "trained":  # what TED's plan brings
            objective.load_filters(objective.filters.state_dict(), objective.teacher_filters.state_dict())
        objective.double()
        objective.begin_epoch(0, 12)
        return objective


def configured(name: str) -> dict[str, Any]:
    """The resolved YAML of one objective."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(f"objective/{name}").objective, resolve=True)


def terms(name: str) -> dict[str, dict[str, Any]]:
    """All terms of one objective, by name."""
    config = configured(name)
    return {**config["intermediate"], **config["prediction"]}


def build(spec: dict[str, Any], **settings: Any) -> Objective:
    """An objective from its YAML."""
    given = {key: value for key, value in spec.items() if key not in ("_target_", "weight", "mapping")}
    return get_class(spec["_target_"])(**{**given, **settings})


def of_tokens(spec: dict[str, Any]) -> bool:
    """Whether a term is one on texts; those on maps of convolutions have tests of their own."""
    return not get_class(spec["_target_"]).needs_maps


ALL = {f"{name}.{term}": spec for name in NAMES for term, spec in terms(name).items() if of_tokens(spec)}


@pytest.fixture
def toy() -> Callable[..., Toy]:
    return Toy


@pytest.fixture(params=ALL, ids=str)
def spec(request) -> dict[str, Any]:
    """Every term of every shipped objective."""
    return ALL[request.param]


@pytest.fixture
def make() -> Callable[..., Objective]:
    return build


@pytest.fixture
def load() -> Callable[[str], dict[str, Any]]:
    return configured


@pytest.fixture
def names() -> list[str]:
    return NAMES
