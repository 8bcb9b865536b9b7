"""Taps on named modules: any module's output is a feature, in one graph, and what cannot be tapped is said."""

from __future__ import annotations

from copy import deepcopy
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from kdexp.heads.batch import Batch
from kdexp.heads.classification import Classification
from kdexp.models import capture, shared_layers
from kdexp.models.families import base as families
from tests.toys import HEAD, examples, network

FFN = "module:{block}.intermediate"


class Wants:
    needs: ClassVar[tuple[str, ...]] = (FFN, "module:bert.pooler.dense", "hidden")
    pairs: ClassVar[list[tuple[int, int]]] = [(1, 2), (2, 4)]


def batch() -> Batch:
    return examples().collate(np.arange(4))


def test_kinds_become_names_of_each_side():
    assert capture.wanted([Wants()], 0) == {f"{FFN}.1", f"{FFN}.2", "module:bert.pooler.dense", "hidden.1", "hidden.2"}
    assert f"{FFN}.4" in capture.wanted([Wants()], 1)


def test_a_modules_output_is_what_the_module_gives():
    model, want = network(2, 1).eval(), capture.wanted([Wants()], 0)
    capture.prepare(model, want)
    features = capture.forward(model, HEAD, batch(), want)
    assert set(features) == {"logits", *want}
    layer = model.bert.encoder.layer[1]
    attended = layer.attention(features["hidden.1"], attention_mask=_mask(batch()))[0]
    torch.testing.assert_close(features[f"{FFN}.2"], layer.intermediate(attended))
    torch.testing.assert_close(features["module:bert.pooler.dense"].tanh(), model.bert.pooler(features["hidden.2"]))


def _mask(some: Batch) -> torch.Tensor:
    return (1.0 - some.mask[:, None, None, :].float()) * torch.finfo(torch.float32).min


def test_taps_are_quiet_unless_asked():
    model, want = network(2, 1).eval(), frozenset({f"{FFN}.1"})
    capture.prepare(model, want)
    assert set(capture.forward(model, HEAD, batch())) == {"logits"}
    copy = deepcopy(model)
    assert f"{FFN}.1" in capture.forward(copy, HEAD, batch(), want)
    assert copy._kdexp_taps is not model._kdexp_taps and model._kdexp_taps.got is None


def test_taps_compile_into_one_graph_and_carry_gradients():
    model, want = network(2, 1).eval(), frozenset({f"{FFN}.2", "query.1"})
    capture.prepare(model, want)
    plain = capture.forward(model, HEAD, batch(), want)
    fast = torch.compile(capture.forward, fullgraph=True, backend="eager")(model, HEAD, batch(), want)
    for name in plain:
        torch.testing.assert_close(fast[name], plain[name])
    fast[f"{FFN}.2"].square().sum().backward()
    assert model.bert.encoder.layer[1].intermediate.dense.weight.grad.abs().sum() > 0


def test_what_cannot_be_tapped_is_said():
    model = network(2, 1)
    with pytest.raises(ValueError, match=r"no module bert\.encoder\.layer\.0\.ffn"):
        capture.prepare(model, frozenset({"module:{block}.ffn.1"}))
    with pytest.raises(ValueError, match="has layers 1 to 2"):
        capture.prepare(model, frozenset({f"{FFN}.3"}))
    shared = network(2, 1)
    shared_layers.share(shared, "sps1")
    want = frozenset({f"{FFN}.1"})
    with pytest.raises(ValueError, match="runs more than once"):
        capture.probe(shared, HEAD, batch(), want, "student")


class Convolutions(nn.Module):
    """A model that no library knows: images in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2)
        self.answer = nn.Linear(8, 2)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.answer(self.body(self.stem(pixel_values)).mean((2, 3)))


class Bare(Classification):
    """A head of a model that returns its logits as they are."""

    def outputs(self, model_output: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": model_output}


def test_maps_of_a_convolution_are_features_too():
    images = Batch({"pixel_values": torch.randn(3, 3, 9, 9)}, None, {}, torch.arange(3))
    model, want = Convolutions(), frozenset({"module:body"})
    capture.probe(model, Bare(["a", "b"]), images, want, "student")
    features = capture.forward(model, Bare(["a", "b"]), images, want)
    assert features["logits"].shape == (3, 2) and features["module:body"].shape == (3, 8, 4, 4)


def test_a_family_is_found_by_its_type():
    assert families.family("bert").reads_pooler and families.family("bert").uniform
    assert not families.family("modernbert").uniform
    assert families.family("roberta") == families.family("xlm-roberta") != families.Family()
    assert families.family("mpnet") == families.Family()
    assert families.family("../../os") == families.Family()
