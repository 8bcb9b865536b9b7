"""Shared parameters in a real model: counted once, saved once, computed twice."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from kdexp.heads.batch import Batch
from kdexp.inits import copying
from kdexp.inits.first import First
from kdexp.models import build as models
from kdexp.models import capture, shared_layers
from kdexp.objectives.common import scaled_scores
from kdexp.train import checkpoint
from tests.toys import HEAD, examples, network


def shared(layers: int, kind: str, seed: int = 1, dropout: float = 0.0) -> torch.nn.Module:
    model = network(layers, seed, dropout)
    shared_layers.share(model, kind)
    return model


def batch() -> Batch:
    return examples().collate(torch.arange(4).numpy())


def names(*kinds: str, layers: int) -> frozenset[str]:
    return frozenset(f"{kind}.{layer}" for kind in kinds for layer in range(1, layers + 1))


@pytest.mark.parametrize(("own", "effective"), [(1, 2), (2, 4), (3, 6), (6, 9)])
@pytest.mark.parametrize("kind", ["sps1", "sps2"])
def test_parameters_are_those_of_the_plain_student(own, effective, kind):
    plain, student = network(own, 1), shared(own, kind)
    assert models.parameters(student) == models.parameters(plain)
    assert set(student.state_dict()) == set(plain.state_dict())
    assert models.shape(student).num_layers == effective == shared_layers.effective_layers(own, kind)
    described = models.describe(student)
    assert (described["layers"], described["effective_layers"]) == (own, effective)


@pytest.mark.parametrize("own", [3, 6])
def test_without_the_exchange_the_stack_runs_twice(own):
    student, plain = shared(own, "sps1").eval(), network(own, 1, 0.0).eval()
    inputs = batch().inputs
    mask = (1.0 - inputs["attention_mask"][:, None, None, :].float()) * -1e9
    hidden = plain.bert.embeddings(inputs["input_ids"], inputs["token_type_ids"])
    for number, _ in shared_layers.sps_plan(own):
        hidden = plain.bert.encoder.layer[number](hidden, mask)
    expected = plain.classifier(plain.bert.pooler(hidden))
    torch.testing.assert_close(student(**inputs).logits, expected)


def test_hidden_states_and_taps_count_effective_layers():
    student = shared(3, "sps2").eval()
    want = names("hidden", "query", "key", layers=6) | {"hidden.0"}
    got = capture.forward(student, HEAD, batch(), want)
    capture.check(got, want, "student")
    assert not torch.equal(got["hidden.6"], got["hidden.3"])


def test_exchanged_layers_have_transposed_scores():
    student, twin = shared(2, "sps2").eval(), shared(2, "sps1").eval()
    want = names("query", "key", "hidden", layers=4)
    ours, theirs = capture.forward(student, HEAD, batch(), want), capture.forward(twin, HEAD, batch(), want)
    torch.testing.assert_close(ours["hidden.2"], theirs["hidden.2"])  # the same input of layer 3 on both sides
    scores = [scaled_scores(f["query.3"], f["key.3"]) for f in (ours, theirs)]
    torch.testing.assert_close(scores[0], scores[1].transpose(-1, -2))
    assert not torch.allclose(ours["hidden.3"], theirs["hidden.3"])


@pytest.mark.parametrize("kind", ["sps1", "sps2"])
@pytest.mark.parametrize("own", [2, 6])
def test_the_unrolled_model_computes_the_same_and_gradients_add_up(own, kind):
    student = shared(own, kind)
    plain = shared_layers.unroll(student, HEAD)
    inputs = batch().inputs
    for model in (student, plain):
        model(**inputs).logits.square().sum().backward()
    torch.testing.assert_close(plain(**inputs).logits, student(**inputs).logits)
    uses = [(i, n, s) for i, (n, s) in enumerate(shared_layers.sps_plan(own, kind == "sps2")) if n == own - 1]
    parts = {False: ("query", "key"), True: ("key", "query")}
    ours = student.bert.encoder.layer[own - 1].attention.self
    for position, name in enumerate(("query", "key")):
        total = sum(
            plain.bert.encoder.layer[i].attention.self.get_submodule(parts[s][position]).weight.grad for i, _, s in uses
        )
        torch.testing.assert_close(getattr(ours, name).weight.grad, total)
    value = sum(plain.bert.encoder.layer[i].attention.self.value.weight.grad for i, _, _ in uses)
    torch.testing.assert_close(ours.value.weight.grad, value)


def test_saving_and_loading_keep_the_function(tmp_path):
    from safetensors.torch import load_file

    student, other = shared(3, "sps2", 1).eval(), shared(3, "sps2", 2).eval()
    models.save(student, tmp_path)
    assert len(load_file(tmp_path / "model.safetensors")) == len(network(3, 1).state_dict())
    models.load_weights(other, tmp_path)
    restored = models.restore(tmp_path, HEAD)
    expected = capture.forward(student, HEAD, batch())["logits"]
    for model in (other, restored, deepcopy(student)):
        torch.testing.assert_close(capture.forward(model, HEAD, batch())["logits"], expected)
    unrolled = shared_layers.unroll(restored, HEAD)
    unrolled.save_pretrained(tmp_path / "plain")
    from transformers import AutoModelForSequenceClassification

    again_plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain").eval()
    torch.testing.assert_close(capture.forward(again_plain, HEAD, batch())["logits"], expected)


def test_checkpoints_hold_each_weight_once(tmp_path):
    student, other = shared(2, "sps2", 1), shared(2, "sps2", 2)
    checkpoint.save_weights(tmp_path / "best.safetensors", student)
    checkpoint.load_weights(tmp_path / "best.safetensors", other)
    for mine, theirs in zip(student.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_an_init_copies_the_own_layers():
    student, teacher = shared(3, "sps2"), network(4, 5)
    report = copying.apply(First(name="first"), student, teacher)
    assert report["layers"] == [1, 2, 3]
    assert report["random_names"] == ["classifier.weight", "classifier.bias"]
    for mine, theirs in zip(shared_layers.own_layers(student), teacher.bert.encoder.layer, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))


def test_it_compiles_into_one_graph():
    student = shared(2, "sps2").eval()
    want = frozenset({"hidden.4", "query.3", "key.3"})
    capture.prepare(student, want)
    plain = capture.forward(student, HEAD, batch(), want)
    fast = torch.compile(capture.forward, fullgraph=True, backend="eager")(student, HEAD, batch(), want)
    for name in plain:
        torch.testing.assert_close(fast[name], plain[name])


def test_modes_and_devices_reach_shared_layers():
    student = shared(2, "sps1", dropout=0.5)
    student.eval()
    one, two = (capture.forward(student, HEAD, batch())["logits"] for _ in range(2))
    assert torch.equal(one, two)
    assert all(p.device.type == "meta" for p in student.to("meta").parameters())


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="sps3"):
        shared_layers.share(network(2, 1), "sps3")
    model = network(2, 1)
    model.config._attn_implementation = "eager"
    with pytest.raises(ValueError, match="choose student.sharing=sps1"):
        shared_layers.share(model, "sps2")
