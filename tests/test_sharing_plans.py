"""Plans and identities of shared parameters, PTP labels, parameter counts: what needs no model."""

from __future__ import annotations

import pytest
import torch

from kdexp.cli.reference import attention_logits, bert_parameter_count, ptp_labels_from_logits
from kdexp.inits.ptp import ptp_median_thresholds
from kdexp.models.shared_layers import effective_layers, sps_plan


def test_six_layers_repeat_the_top_three_only():
    assert sps_plan(6) == [(i, False) for i in range(6)] + [(i, True) for i in (3, 4, 5)]
    assert [effective_layers(k, "sps2") for k in (1, 2, 3, 4, 6)] == [2, 4, 6, 8, 9]
    with pytest.raises(ValueError, match="sps3"):
        effective_layers(3, "sps3")


def test_exchanged_projections_transpose_the_scores():
    x = torch.randn(2, 5, 8)
    wq, bq, wk, bk = torch.randn(8, 8), torch.randn(8), torch.randn(8, 8), torch.randn(8)
    plain, turned = (attention_logits(x, wq, bq, wk, bk, heads=2, swap_qk=swap) for swap in (False, True))
    torch.testing.assert_close(turned, plain.transpose(-1, -2))


def test_thresholds_need_both_kinds():
    with pytest.raises(ValueError, match="0 wrong"):
        ptp_median_thresholds(torch.tensor([0.9, 0.8]), torch.tensor([1, 1]))
    even = ptp_median_thresholds(torch.tensor([0.5, 0.7, 0.9, 0.6]), torch.tensor([1, 1, 0, 0]))
    assert even == pytest.approx([0.6, 0.75])


def test_labels_cover_all_four_classes():
    logits = torch.tensor([[4.0, 0.0], [0.1, 0.0], [4.0, 0.0], [0.1, 0.0]])
    labels = ptp_labels_from_logits(logits, torch.tensor([0, 0, 1, 1]), 0.9, 0.9)
    assert labels.tolist() == [0, 1, 2, 3]


def test_the_count_is_that_of_a_real_model():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 20, "vocab_size": 50}
    model = BertForSequenceClassification(BertConfig(**sizes, num_attention_heads=2, num_labels=3))
    counted = bert_parameter_count(layers=2, hidden=8, ffn=20, vocab=50, num_labels=3)
    assert sum(p.numel() for p in model.parameters()) == counted
