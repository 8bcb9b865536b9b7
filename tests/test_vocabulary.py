"""Training with the rows of the vocabulary that the data use is training with all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kdexp.models import capture, vocabulary
from kdexp.objectives.base import Context, Shape
from kdexp.objectives.hid_seq import HidSeq
from kdexp.objectives.kd import KD
from kdexp.tasks.base import Relabelled, Subset
from kdexp.tasks.text.encoding import Encoded
from kdexp.train import loop, optim, teachers
from kdexp.train.step import Step, Term
from kdexp.train.student import Student
from tests import test_loop
from tests.test_reach import FAMILIES, model_of
from tests.toys import HEAD, network

NAME = "bert.embeddings.word_embeddings.weight"
USED = [0, 7, 8, 9, 20, 21, 22, 30, 31, 32, 40]


def data(n: int = 30) -> Encoded:
    """Examples of eleven ids, padding among them."""
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(3, 17, n))]).astype(np.int64)
    tokens = rng.choice(USED[1:], offsets[-1]).astype(np.int32)
    return Encoded(tokens, np.zeros_like(tokens, dtype=np.int8), offsets, rng.integers(0, 3, n), 0, 0)


def student(folder: Path, recipe: Any, narrow: bool, seed: int = 1) -> Student:
    """A student of an intermediate objective that reads the embedding's output, and of kd."""
    folder.mkdir(exist_ok=True)
    model, terms = network(2, seed).double(), []
    if narrow:
        assert vocabulary.narrow(model, data().vocabulary())
    for objective, pairs in ((KD(), []), (HidSeq(), [(0, 0), (2, 4)])):
        objective.setup(Context(Shape(2, 16, 2), Shape(4, 16, 2), pairs, HEAD, 30, {"label": np.zeros(30)}))
        terms.append(Term(type(objective).__name__, 1.0, objective))

    def judge(m: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            logits = capture.forward(m.eval(), HEAD, data().collate(np.arange(30)))["logits"]
        return {"accuracy": float(logits.sum())}

    return Student(Step(model, HEAD, terms), recipe, folder, judge, "accuracy", lambda *values: None)


def trained(one: Student, recipe: Any, **more: Any) -> dict[str, Tensor]:
    """The weights after eight updates, with the whole table."""
    target = teachers.LiveTeacher(network(4, 99).double(), HEAD, frozenset({"hidden.0", "hidden.4"}), None)
    loop.train(one, target, data(), test_loop.schedule(recipe, **more))
    vocabulary.widen(one.model, optim.decay(one.progress.step, 8, recipe))
    return test_loop.weights(one)


def test_without_decay_and_clipping_every_bit_is_the_same(tmp_path):
    recipe = test_loop.RECIPE.model_copy(update={"weight_decay": 0.0, "clip": None})
    mine = trained(student(tmp_path / "narrow", recipe, True), recipe)
    whole = trained(student(tmp_path / "whole", recipe, False), recipe)
    assert list(mine) == list(whole) and test_loop.same(mine, whole)


def test_with_them_the_same_but_for_rounding(tmp_path):
    """Eight updates in float64: every weight within 1e-9, rows that are not used too."""
    recipe = test_loop.RECIPE.model_copy(update={"weight_decay": 0.3, "clip": 0.1, "warmup": 2})
    mine = trained(student(tmp_path / "narrow", recipe, True), recipe)
    whole = trained(student(tmp_path / "whole", recipe, False), recipe)
    for name in whole:
        torch.testing.assert_close(mine[name], whole[name], rtol=1e-9, atol=1e-12, msg=lambda text, n=name: n + text)
    before, rest = network(2, 1).double().state_dict()[NAME], sorted(set(range(50)) - set(USED))
    assert not torch.allclose(mine[NAME][rest], before[rest], rtol=1e-3), "decay was to be seen"


@pytest.mark.parametrize("stop_at", [1, 5])
def test_a_stopped_phase_continues_bit_for_bit_from_a_smaller_checkpoint(tmp_path, stop_at):
    recipe = test_loop.RECIPE
    whole = trained(student(tmp_path / "whole", recipe, True), recipe)
    first = student(tmp_path / "cut", recipe, True)
    with pytest.raises(loop.Interrupted):
        trained(first, recipe, stop=lambda: first.progress.step >= stop_at)
    state = load_file(tmp_path / "cut" / "checkpoint" / "state.safetensors")
    assert state[f"model.{NAME}"].shape == (len(USED), 16)
    assert not [name for name, tensor in state.items() if 50 in tensor.shape]
    second = student(tmp_path / "cut", recipe, True)
    assert second.progress.step == stop_at
    assert test_loop.same(whole, trained(second, recipe))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_narrow_model_answers_as_before_and_is_whole_again(family):
    model, batch = model_of(family), data().collate(np.arange(6))
    batch.inputs.pop("token_type_ids")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        expected = capture.forward(model, HEAD, batch)["logits"]
        assert vocabulary.narrow(model, data().vocabulary())
        assert torch.equal(capture.forward(model, HEAD, batch)["logits"], expected)
    assert sum(p.numel() for p in model.parameters()) < sum(x.numel() for x in before.values())
    vocabulary.widen(model, 1.0)
    vocabulary.widen(model, 0.0)  # it is whole: nothing happens
    assert list(model.state_dict()) == list(before) and test_loop.same(before, model.state_dict())
    assert all(p.requires_grad for p in model.parameters())


def test_ids_that_nobody_announced_are_no_other_row():
    model = network(1, 1)
    assert vocabulary.narrow(model, np.array([5, 6]))
    assert vocabulary.rows(model) == {"used": 3, "of": 50}, "and padding"
    with pytest.raises(IndexError):
        capture.forward(model, HEAD, data().collate(np.arange(6)))


def test_tables_that_stay_whole():
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    tied = BertForMaskedLM(BertConfig(vocab_size=50, **sizes))
    frozen = network(1, 1).requires_grad_(False)
    for model, used in ((tied, USED), (frozen, USED), (network(1, 1), range(45)), (nn.Linear(2, 2), USED)):
        assert not vocabulary.narrow(model, np.array(used)) and vocabulary.rows(model) is None
        vocabulary.widen(model, 0.5)


def test_a_split_knows_its_ids():
    assert data().vocabulary().tolist() == USED
    assert Subset(data(), np.arange(3)).vocabulary().tolist() == USED
    assert Relabelled(data(), {"label": np.zeros(30)}).vocabulary().tolist() == USED


def test_compilation_sees_one_graph():
    model, batch = network(1, 1).eval(), data().collate(np.arange(6))
    vocabulary.narrow(model, data().vocabulary())
    compiled = torch.compile(capture.forward, fullgraph=True, backend="eager")
    assert torch.equal(compiled(model, HEAD, batch)["logits"], capture.forward(model, HEAD, batch)["logits"])
