"""How far up a forward pass goes: what nobody reads is not run, and everything else is what it would have been."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdexp.heads.batch import Batch, Features
from kdexp.models import capture, reach, shared_layers
from kdexp.models.families import base as families
from kdexp.objectives.att_kl import AttKL
from kdexp.objectives.base import Context
from kdexp.objectives.hid_seq import HidSeq
from kdexp.objectives.kd import KD
from kdexp.objectives.patience import Patience
from kdexp.train import loop, teachers
from kdexp.train.step import Step, Term
from tests import test_loop
from tests.toys import HEAD, network

LAYERS = 4
SIZES: dict[str, Any] = {
    "num_hidden_layers": LAYERS, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50,
    "max_position_embeddings": 40, "num_labels": 3, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "modernbert")
WANTS = ("hidden.0", "hidden.2", "query.2 key.2", "query.1 key.1 value.4", "hidden.1 query.3", "hidden.4", "value.3")


def model_of(family: str, sharing: str = "none", dropout: float = 0.0) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(family, **SIZES)
    for key in vars(config):
        if key.endswith(("dropout_prob", "dropout")):
            setattr(config, key, dropout)
    if family == "modernbert":
        config.layer_types = ["full_attention", "sliding_attention"] * 2
    capture.install()
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=families.ATTENTION).eval()
    if sharing != "none":
        shared_layers.share(model, sharing)
    return model


def batch() -> Batch:
    """Three examples of different lengths, none with a token of its own segment."""
    lengths = torch.tensor([9, 4, 6])
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(9) < lengths[:, None]).long()
    ids = torch.randint(5, 50, mask.shape, generator=generator) * mask
    return Batch({"input_ids": ids, "attention_mask": mask}, mask, {}, torch.arange(3))


def attentions(model: nn.Module, calls: list[int]) -> None:
    """Note the number of every block of which something but projections is run, from now on."""
    for number, block in enumerate(families.of(model).layers(model), 1):
        some = [m for n, m in block.named_modules() if n in ("output", "ffn", "mlp")]
        for module in some:
            module.register_forward_hook(lambda *ignored, number=number: calls.append(number))


def gradients(model: nn.Module, features: Features) -> dict[str, Tensor]:
    model.zero_grad()
    sum(x.square().sum() for x in features.values()).backward()  # type: ignore[union-attr]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("want", WANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_that_stops_early_gives_the_same_bits(family, want):
    whole, cut = model_of(family), model_of(family)
    names, calls = frozenset(want.split()), []
    assert not hasattr(whole, reach.GATE)
    features = {n: x for n, x in capture.forward(whole, HEAD, batch(), names).items() if n != "logits"}
    capture.prepare(cut, names)
    attentions(cut, calls)
    early = capture.forward(cut, HEAD, batch(), names, answers=False)
    assert equal(early, features)
    assert equal(gradients(cut, early), gradients(whole, features))
    taken_apart = families.of(cut).block is not None
    highest = {n.partition(".")[0]: int(n.partition(".")[2]) for n in sorted(names, key=lambda n: n[-1])}
    last = max(n - (kind != "hidden" and taken_apart) for kind, n in highest.items())
    assert sorted(set(calls)) == list(range(1, last + 1))


@pytest.mark.parametrize("want", ["hidden.2", "query.6 key.6", "query.5 key.5 value.5", "hidden.8"])
@pytest.mark.parametrize("sharing", ["sps1", "sps2"])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_layers_that_are_run_again_stop_too(family, sharing, want):
    whole, cut, names = model_of(family, sharing), model_of(family, sharing), frozenset(want.split())
    capture.prepare(cut, names)
    features = capture.forward(whole, HEAD, batch(), names)
    features.pop("logits")
    assert equal(capture.forward(cut, HEAD, batch(), names, answers=False), features)


def test_gates_leave_the_next_pass_alone():
    model, plain = network(4, 1).eval(), network(4, 1).eval()
    capture.prepare(model, frozenset({"hidden.1"}))
    some = batch()
    expected = capture.forward(plain, HEAD, some)
    capture.forward(model, HEAD, some, frozenset({"hidden.1"}), answers=False)
    torch.testing.assert_close(capture.forward(model, HEAD, some), expected, rtol=1e-5, atol=1e-6)
    twin = deepcopy(model)
    with torch.no_grad():
        twin.bert.encoder.layer[0].output.dense.weight.zero_()
    torch.testing.assert_close(capture.forward(model, HEAD, some), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(capture.forward(twin, HEAD, some)["logits"], expected["logits"])
    assert twin._kdexp_gate is not model._kdexp_gate


def test_modules_inside_a_block_are_reached_and_others_need_everything():
    model, calls = network(4, 1).eval(), []
    inside, above = "module:{block}.intermediate.2", "module:bert.pooler.dense"
    capture.prepare(model, frozenset({inside, above}))
    attentions(model, calls)
    assert set(capture.forward(model, HEAD, batch(), frozenset({inside}), answers=False)) == {inside}
    assert set(calls) == {1, 2}
    assert set(capture.forward(model, HEAD, batch(), frozenset({above}), answers=False)) == {above}
    assert set(calls) == {1, 2, 3, 4}


@pytest.mark.parametrize("want", ["query.2 key.2", "hidden.1"])
def test_an_early_stop_compiles_into_one_graph(want):
    model, names = network(4, 1).eval(), frozenset(want.split())
    capture.prepare(model, names)
    plain = capture.forward(model, HEAD, batch(), names, False)
    fast = torch.compile(capture.forward, fullgraph=True, backend="eager")(model, HEAD, batch(), names, False)
    assert equal(fast, plain)


def test_a_family_that_nobody_knows_is_run_whole():
    model, calls = model_of("bert"), []
    model.config.model_type = "mpnet"
    capture.prepare(model, frozenset({"hidden.1"}))
    attentions(model, calls)
    assert set(capture.forward(model, HEAD, batch(), frozenset({"hidden.1"}), answers=False)) == {"hidden.1"}
    assert set(calls) == {1, 2, 3, 4}


def test_who_reads_answers_decides():
    features, answers = [AttKL(), HidSeq()], [AttKL(), KD()]
    for one in features:
        one.pairs = [(1, 2)]
    answers[0].pairs = [(1, 2)]
    assert [capture.answers_wanted(features, side) for side in (0, 1)] == [False, False]
    assert [capture.answers_wanted(answers, side) for side in (0, 1)] == [True, True]
    assert capture.answers_wanted([Patience()], 0)  # nothing is matched: its zero hangs on the answers


class Whole:
    """Lets every forward pass run everything, as it did before there were gates."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reach, "install", lambda model: None)
        monkeypatch.setattr(capture, "answers_wanted", lambda objectives, side: True)


def trained(folder: Any, dropout: float = 0.1) -> tuple[dict[str, Tensor], list[Any]]:
    """Weights and losses of a student that learns hidden states and attention of low layers for eight updates."""
    m = test_loop.student(folder, dropout=dropout)
    terms = []
    for name, objective in {"att_kl": AttKL(), "hid_seq": HidSeq()}.items():
        context = Context(families.of(m.model).shape(m.model), families.Shape(4, 16, 2), [(1, 1), (2, 2)], HEAD, 30, {})
        objective.setup(context)
        terms.append(Term(name, 1.0, objective))
    step = Step(m.model, HEAD, terms)
    losses: list[Any] = []
    student = test_loop.Student(
        step, test_loop.RECIPE, folder / "own", None, "accuracy", lambda *values: losses.append(values)
    )
    objectives = step.listeners()
    model = network(4, 99)
    target = teachers.LiveTeacher(
        model, HEAD, capture.wanted(objectives, 1), None, answers=capture.answers_wanted(objectives, 1)
    )
    loop.train([student], target, test_loop.examples(), test_loop.schedule(log_every=1))
    return test_loop.weights(student), losses


def test_training_on_features_moves_no_bit(tmp_path, monkeypatch):
    for name in ("early", "whole"):
        (tmp_path / name).mkdir()
    early, losses = trained(tmp_path / "early")
    Whole(monkeypatch)
    weights, whole = trained(tmp_path / "whole")
    assert equal(early, weights) and losses == whole and len(losses) == 8
