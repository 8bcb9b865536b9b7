"""Shared parameters in a real model: counted once, saved once, computed twice."""

from __future__ import annotations

import subprocess
import sys
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
from tests.conftest import program_environment
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
    plain = shared_layers.unroll(student)
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


PLAIN = """
import sys
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

inputs = load_file(sys.argv[2])
save_file({"logits": AutoModelForSequenceClassification.from_pretrained(sys.argv[1])(**inputs).logits}, sys.argv[2])
"""


@pytest.mark.parametrize(("own", "kind"), [(3, "sps2"), (2, "sps1"), (6, "sps2")])
def test_saving_and_loading_keep_the_function(own, kind, tmp_path):
    from safetensors.torch import load_file, save_file

    student, other = shared(own, kind, 1).eval(), shared(own, kind, 2).eval()
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        models.save(student, tmp_path / "saved")
        assert torch.equal(torch.get_rng_state(), before)
    models.load_weights(other, tmp_path / "saved")
    restored = models.restore(tmp_path / "saved", HEAD)
    assert models.parameters(restored) == models.parameters(network(own, 1))
    expected = capture.forward(student, HEAD, batch())["logits"]
    for model in (other, restored, deepcopy(student)):
        torch.testing.assert_close(capture.forward(model, HEAD, batch())["logits"], expected)

    # Programs that do not know kdexp read the model that was measured, not its own layers without the repetitions.
    save_file(batch().inputs, tmp_path / "exchange.safetensors")
    command = [sys.executable, "-c", PLAIN, str(tmp_path / "saved"), str(tmp_path / "exchange.safetensors")]
    subprocess.run(command, check=True, cwd=tmp_path, env=program_environment({}), timeout=200)
    torch.testing.assert_close(load_file(tmp_path / "exchange.safetensors")["logits"], expected)


def test_a_joint_projection_is_unrolled_too(tmp_path):
    from transformers import AutoModelForSequenceClassification, ModernBertConfig

    capture.install()
    config = ModernBertConfig(
        num_hidden_layers=6, hidden_size=16, num_attention_heads=2, intermediate_size=32, vocab_size=50, num_labels=3,
        pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(1)
    student = AutoModelForSequenceClassification.from_config(config, attn_implementation="kdexp").eval()
    shared_layers.share(student, "sps2")
    inputs = {key: value for key, value in batch().inputs.items() if key != "token_type_ids"}
    expected = student(**inputs).logits
    models.save(student, tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert plain.config.num_hidden_layers == 9
    torch.testing.assert_close(plain(**inputs).logits, expected)
    for layer in student.model.layers[6:]:
        layer.swap = False
    assert not torch.allclose(student(**inputs).logits, expected, atol=1e-4)


def test_a_student_of_a_shared_one_is_not_called_shared(tmp_path):
    student = shared(2, "sps1").eval()
    models.save(student, tmp_path / "shared")
    plain = models.restore(tmp_path / "shared", HEAD)
    assert len(shared_layers.own_layers(plain)) == 2
    twin = shared_layers.unroll(student)
    models.save(twin, tmp_path / "plain")
    assert "kdexp_sharing" not in (tmp_path / "plain" / "config.json").read_text()
    assert len(shared_layers.own_layers(models.restore(tmp_path / "plain", HEAD))) == 4


def test_what_cannot_be_read_back_is_not_kept(tmp_path, monkeypatch):
    student = network(2, 1)
    written = type(student).save_pretrained

    def losing(self, folder, **options):
        written(self, folder, **options)
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x55")

    monkeypatch.setattr(type(student), "save_pretrained", losing)
    with pytest.raises(RuntimeError, match="does not hold the model that was written"):
        models.save(student, tmp_path)


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
