"""How far up a forward pass goes: what nobody reads is not run, and everything else is what it would have been."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdexp.heads.batch import Batch, Features
from kdexp.heads.classification import Classification
from kdexp.models import capture, reach, shared_layers
from kdexp.models.families import base as families
from kdexp.objectives.att_kl import AttKL
from kdexp.objectives.base import Context, Objective, Shape
from kdexp.objectives.finetune import Finetune
from kdexp.objectives.hid_seq import HidSeq
from kdexp.objectives.kd import KD
from kdexp.objectives.patience import Patience
from kdexp.train import loop, teachers
from kdexp.train.step import Step, Term
from kdexp.train.student import Student
from tests import test_loop
from tests.toys import HEAD, examples, network

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


FIRST = [name for name in FAMILIES if name != "modernbert"]
LOW = frozenset({"hidden.3", "query.2", "module:{block}.attention.1"})


def doubled(family: str, sharing: str = "none", gated: bool = True, want: frozenset[str] = frozenset()) -> Any:
    model = model_of(family, sharing).double()
    if gated:
        capture.prepare(model, want)
    elif want:
        capture.prepare(model, want)
        delattr(model, reach.GATE)
    return model


def close(mine: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal but for rounding, in float64."""
    assert set(mine) == set(expected)
    for name in mine:
        torch.testing.assert_close(mine[name], expected[name], rtol=1e-9, atol=1e-12, msg=lambda text, n=name: n + text)


@pytest.mark.parametrize("want", [frozenset(), LOW], ids=["answers", "features"])
@pytest.mark.parametrize("sharing", ["none", "sps1", "sps2"])
@pytest.mark.parametrize("family", FIRST)
def test_the_last_layer_for_the_first_token_is_the_whole_one(family, sharing, want):
    whole, cut = doubled(family, sharing, False, want), doubled(family, sharing, True, want)
    if sharing != "none" and want:
        want = want - {"module:{block}.attention.1"}  # run twice
    expected, mine = capture.forward(whole, HEAD, batch(), want), capture.forward(cut, HEAD, batch(), want)
    close(mine, expected)
    close(gradients(cut, mine), gradients(whole, expected))


@pytest.mark.parametrize("family", FAMILIES)
def test_how_many_rows_of_the_last_layer_are_run(family):
    model, rows = model_of(family), []
    capture.prepare(model, frozenset())
    last = families.of(model).layers(model)[-1]
    last.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[1]))
    capture.forward(model, HEAD, batch())
    for want in ("hidden.4", "query.4", "value.4", "module:{block}.attention.4", "module:classifier"):
        if family == "bert":
            capture.prepare(model, frozenset({want}))
            capture.forward(model, HEAD, batch(), frozenset({want}))
    assert rows == [9 if family == "modernbert" else 1] + [9] * 5 * (family == "bert")


class Reads(Classification):
    """A head that looks at more than the logits."""

    def outputs(self, model_output: Any) -> dict[str, Tensor]:
        return {"logits": model_output.logits}


class Tokens(Classification):
    """A head of another kind of model."""

    auto_class = "AutoModelForTokenClassification"


@pytest.mark.parametrize("head", [Reads(["a", "b", "c"]), Tokens(["a", "b", "c"])])
def test_a_head_that_may_read_more_keeps_the_whole_layer(head):
    model, plain = model_of("bert"), model_of("bert")
    capture.prepare(model, frozenset())
    assert equal(capture.forward(model, head, batch()), capture.forward(plain, head, batch()))
    assert reach.describe(model, head, frozenset(), True) == {"layers": 4, "whole": 4, "next": None}
    assert reach.describe(model, HEAD, frozenset(), True) == {"layers": 4, "whole": 3, "next": "first token"}


def test_a_layer_that_is_run_again_hands_out_the_one_before_it():
    whole, cut = doubled("bert", "sps2", gated=False), doubled("bert", "sps2")
    want = frozenset({"hidden.7"})  # of 8: transformers' list would end with the first token's row
    close(capture.forward(cut, HEAD, batch(), want), capture.forward(whole, HEAD, batch(), want))


def test_attention_of_the_librarys_own_is_left_whole():
    from transformers import AutoConfig, AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", **SIZES)).eval()
    capture.prepare(model, frozenset())
    assert reach.describe(model, HEAD, frozenset(), True)["whole"] == 4


def test_the_first_tokens_row_compiles_into_one_graph():
    model = doubled("bert", want=frozenset({"hidden.2"}))
    plain = capture.forward(model, HEAD, batch(), frozenset({"hidden.2"}))
    compiled = torch.compile(capture.forward, fullgraph=True, backend="eager")
    close(compiled(model, HEAD, batch(), frozenset({"hidden.2"})), plain)


def test_dropout_of_the_last_row_is_drawn_and_seeded():
    model = model_of("bert", dropout=0.5).train()
    capture.prepare(model, frozenset())
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(capture.forward(model, HEAD, batch())["logits"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.allclose(drawn[0], drawn[2])
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    families.of(model).layers(model)[-1].attention.self.dropout.p = 0.5  # the last layer's attention alone draws
    torch.manual_seed(1)
    one = capture.forward(model, HEAD, batch())["logits"]
    torch.manual_seed(2)
    assert not torch.allclose(one, capture.forward(model, HEAD, batch())["logits"])


class Whole:
    """Lets every forward pass run everything, as it did before there were gates."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reach, "install", lambda model: None)
        monkeypatch.setattr(capture, "answers_wanted", lambda objectives, side: True)


def trained(
    folder: Path, objectives: list[Objective], pairs: list[tuple[int, int]], dropout: float
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Weights and losses of a student of 3 layers and a teacher of 4 after eight updates, in float64."""
    model, teacher, losses = network(3, 1, dropout).double(), network(4, 99).double(), []
    for objective in objectives:
        context = Context(Shape(3, 16, 2), Shape(4, 16, 2), pairs, HEAD, 30, {"label": np.zeros(30)})
        objective.setup(context)
    step = Step(model, HEAD, [Term(type(o).__name__, 1.0, o) for o in objectives])
    student = Student(step, test_loop.RECIPE, folder, None, "accuracy", lambda *values: losses.append(values[2]))
    answers = capture.answers_wanted(objectives, 1)
    target = teachers.LiveTeacher(teacher, HEAD, capture.wanted(objectives, 1), None, answers=answers)
    loop.train(student, target, examples(), test_loop.schedule(log_every=1))
    return test_loop.weights(student), [torch.tensor(list(line.values()), dtype=torch.float64) for line in losses]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_training_on_features_moves_no_bit(tmp_path, monkeypatch, dropout):
    early = trained(tmp_path / "early", [AttKL(), HidSeq()], [(1, 1), (2, 2)], dropout)
    Whole(monkeypatch)
    whole = trained(tmp_path / "whole", [AttKL(), HidSeq()], [(1, 1), (2, 2)], dropout)
    assert equal(early[0], whole[0]) and len(early[1]) == 8
    assert all(torch.equal(a, b) for a, b in zip(early[1], whole[1], strict=True))


@pytest.mark.parametrize("objectives", [[KD], [Finetune], [KD, Patience]], ids=["kd", "finetune", "pkd"])
def test_training_with_the_last_row_moves_by_rounding(tmp_path, monkeypatch, objectives):
    """Eight updates in float64, dropout off: weights and losses within 1e-9."""
    mine = trained(tmp_path / "row", [kind() for kind in objectives], [(1, 1), (2, 3)], 0.0)
    Whole(monkeypatch)
    expected = trained(tmp_path / "whole", [kind() for kind in objectives], [(1, 1), (2, 3)], 0.0)
    close(mine[0], expected[0])
    torch.testing.assert_close(torch.stack(mine[1]), torch.stack(expected[1]), rtol=1e-9, atol=1e-12)
    assert not equal(mine[0], expected[0]), "the row was not used: this test compared nothing"
