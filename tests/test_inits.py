"""Initialisations: which layers are copied, and that nothing stays random by accident."""

from __future__ import annotations

import pytest
import torch

from kdexp.inits import copying
from kdexp.inits.first import First
from kdexp.inits.last import Last
from kdexp.inits.layers import Layers
from kdexp.inits.random import Random
from kdexp.inits.spread import Spread
from tests.toys import network


@pytest.mark.parametrize(
    ("init", "k", "n", "expected"),
    [
        (First(), 3, 12, [1, 2, 3]),
        (Last(), 3, 12, [10, 11, 12]),
        (Spread(), 3, 12, [4, 8, 12]),
        (Spread(), 4, 12, [3, 6, 9, 12]),
        (Spread(), 4, 6, [2, 3, 5, 6]),
        (Spread(), 1, 6, [6]),
        (Spread(), 6, 6, [1, 2, 3, 4, 5, 6]),
        (Layers(chosen=[1, 8, 12]), 3, 12, [1, 8, 12]),
        (Random(), 3, 12, None),
    ],
)
def test_layers(init, k, n, expected):
    assert init.layers(k, n) == expected


@pytest.mark.parametrize("init", [First(name="first"), Last(name="last"), Spread(name="spread")])
def test_a_student_deeper_than_its_teacher_is_refused(init):
    with pytest.raises(ValueError, match=r"student.num_layers=6 needs a teacher of at least 6 layers \(it has 4\)"):
        init.layers(6, 4)


def test_wrong_lists_are_refused():
    with pytest.raises(ValueError, match="names 2 layers, but student.num_layers=3"):
        Layers(chosen=[1, 2]).layers(3, 12)
    with pytest.raises(ValueError, match=r"\[13\] are not layers of this teacher \(1..12\)"):
        Layers(chosen=[1, 2, 13]).layers(3, 12)


def test_copied_layers_are_equal_and_the_head_is_not():
    big, small = network(4, 1), network(2, 2)
    report = copying.apply(Spread(name="spread"), small, big)
    assert report["layers"] == [2, 4]
    pairs = zip(small.bert.encoder.layer, (big.bert.encoder.layer[1], big.bert.encoder.layer[3]), strict=True)
    for mine, theirs in pairs:
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
    assert torch.equal(small.bert.embeddings.word_embeddings.weight, big.bert.embeddings.word_embeddings.weight)
    assert torch.equal(small.bert.pooler.dense.weight, big.bert.pooler.dense.weight)
    assert not torch.equal(small.classifier.weight, big.classifier.weight)
    assert report["random_names"] == ["classifier.weight", "classifier.bias"]


def test_head_and_pooler_are_choices():
    big, small = network(4, 1), network(2, 2)
    copying.apply(First(pooler=False, head=True), small, big)
    assert torch.equal(small.classifier.weight, big.classifier.weight)
    assert not torch.equal(small.bert.pooler.dense.weight, big.bert.pooler.dense.weight)


def test_nothing_that_should_be_copied_stays_random():
    from transformers import AutoModelForSequenceClassification, BertConfig

    config = BertConfig(
        num_hidden_layers=2,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=50,
        max_position_embeddings=32,
    )
    small = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(ValueError, match=r"should be copied from teacher weight .* which has \(32, 16\)"):
        copying.apply(First(name="first"), small, network(4, 1))
