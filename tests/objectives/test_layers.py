"""Objectives on hidden states and attention: zero at equality, heads, projections, masks."""

from __future__ import annotations

import pytest
import torch

from kdexp.objectives import att_kl, att_mse, common, hid_cls, hid_seq, minilm, minilm_v2, patience, ted, val_kl
from kdexp.objectives.base import Shape

SAME = Shape(3, 8, 2)
EQUAL = (
    att_kl.AttKL(),
    att_mse.AttMSE(),
    val_kl.ValKL(),
    minilm.MiniLM(),
    minilm_v2.MiniLMv2(),
    hid_seq.HidSeq(),
    hid_cls.HidCLS(),
    patience.Patience(allow_last=True),
)


@pytest.mark.parametrize("objective", EQUAL, ids=lambda o: type(o).__name__)
def test_identical_features_cost_nothing(objective, toy):
    models = toy(student=SAME, teacher=SAME)
    models.setup(objective, "first")
    side = models.features(SAME)
    assert objective(side, side, models.batch()).item() == pytest.approx(0, abs=1e-12)


def test_no_nan_from_saturated_attention():
    mask = torch.tensor([[1, 1, 0]])
    sharp = 1e4 * torch.eye(3)[None, None]
    student = (-sharp).requires_grad_()
    loss = att_kl.attention_kl(student, sharp, mask)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_as_coded_attention_mse_forgets_very_low_scores():
    mask = torch.ones(1, 2, dtype=torch.long)
    student, teacher = torch.full((1, 1, 2, 2), -500.0), torch.zeros(1, 1, 2, 2)
    assert att_mse.attention_mse(student, teacher, mask, "as_coded_neg_inf") == 0
    assert att_mse.attention_mse(student, teacher, mask) == 250_000


def test_heads_can_be_regrouped_without_mixing_positions():
    vectors = torch.randn(2, 3, 5, 4)
    merged = common.merge_heads(vectors)
    assert torch.equal(merged[1, 2], torch.cat([vectors[1, h, 2] for h in range(3)]))
    assert torch.equal(common.split_heads(merged, 3), vectors)


def test_relations_of_unequal_heads(toy):
    """Permuting tokens on both sides alike must not change a relation loss; a mix of positions would."""
    models = toy(student=Shape(2, 12, 3), teacher=Shape(4, 8, 2))
    objective = models.setup(minilm_v2.MiniLMv2(heads=4))
    student, teacher = models.features(models.student, (4, 4)), models.features(models.teacher, (4, 4))
    batch = models.batch((4, 4))
    order = torch.tensor([2, 0, 3, 1])
    moved = [{n: x[:, :, order] if x.dim() == 4 else x for n, x in side.items()} for side in (student, teacher)]
    torch.testing.assert_close(objective(*moved, batch), objective(student, teacher, batch))


def test_impossible_heads_are_refused(toy):
    models = toy(student=Shape(2, 12, 3), teacher=Shape(4, 8, 2))
    for objective in (att_kl.AttKL(), att_mse.AttMSE(), minilm.MiniLM(), val_kl.ValKL()):
        with pytest.raises(ValueError, match="student has 3, the teacher 2"):
            models.setup(objective)
    with pytest.raises(ValueError, match=r"8 relation heads.*student's is 12"):
        models.setup(minilm_v2.MiniLMv2(heads=8))
    models.setup(val_kl.ValKL(heads=4))


@pytest.mark.parametrize("kind", [hid_seq.HidSeq, hid_cls.HidCLS])
def test_projections(kind, toy):
    wide, same = toy(student=Shape(2, 6, 2)), toy()
    assert len(wide.setup(kind()).maps) == 3
    assert len(wide.setup(kind(share_projection=True)).maps) == 1
    assert len(same.setup(kind()).maps) == 0
    assert len(same.setup(kind(projection="always")).maps) == 3
    with pytest.raises(ValueError, match="student's width is 6, the teacher's 8"):
        wide.setup(kind(projection="never"))


def test_layer_reduce(toy):
    models = toy()
    inputs = models.features(models.student), models.features(models.teacher), models.batch()
    total, mean = (models.setup(att_kl.AttKL(layer_reduce=r))(*inputs) for r in ("sum", "mean"))
    torch.testing.assert_close(total, 2 * mean)


def test_the_released_bug_looks_at_one_sentence():
    student, teacher = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    buggy = hid_cls.hidden_cls(student, teacher, "bug_a1")
    torch.testing.assert_close(buggy, (student[0] - teacher[0]).square().mean())
    student[1:] = 0
    torch.testing.assert_close(hid_cls.hidden_cls(student, teacher, "bug_a1"), buggy)


def test_patience_leaves_the_last_layer_alone(toy):
    models = toy()
    with pytest.raises(ValueError, match="includes layer 2"):
        models.setup(patience.Patience(), "uniform")
    one = toy(student=Shape(1, 8, 2))
    term = one.setup(patience.Patience())
    student = one.features(one.student)
    loss = term(student, one.features(one.teacher), one.batch())
    loss.backward()
    assert loss == 0


def test_pad_aware_needs_a_mask():
    x = torch.zeros(1, 2, 4)
    with pytest.raises(ValueError, match="attention mask"):
        hid_seq.hidden_mse(x, x)
    with pytest.raises(ValueError, match="attention mask"):
        val_kl.relation_kl(x, x, None, 2)


def test_filters_must_be_loaded(toy):
    models = toy(student=Shape(2, 6, 2))
    stage2 = models.setup(ted.TedMatch(output=4), stage_one=False)
    inputs = models.features(models.student), models.features(models.teacher), models.batch()
    with pytest.raises(AssertionError, match="not loaded"):
        stage2(*inputs)
    own = models.setup(ted.TedFilters(output=4))
    with pytest.raises(ValueError, match=r"student's filters.*\[8, 6\].*\[4, 6\]"):
        stage2.load_filters(models.setup(ted.TedFilters(output=8)).filters.state_dict(), {})
    with pytest.raises(ValueError, match="teacher's filters"):
        stage2.load_filters(own.filters.state_dict(), {})
    turned = toy(student=models.teacher)
    its = turned.setup(ted.TedFilters(output=4), {"name": "explicit", "pairs": [[2, 2], [4, 4]]})
    stage2.load_filters(own.filters.state_dict(), its.filters.state_dict())
    stage2(*inputs).backward()
    assert all(p.grad is None for p in stage2.teacher_filters.parameters())
    assert all(p.grad is not None for p in stage2.filters.parameters())
    restored = models.setup(ted.TedMatch(output=4))
    restored.load_state_dict(stage2.state_dict())
    torch.testing.assert_close(restored(*inputs), stage2(*inputs))


def test_filters_learn_on_a_frozen_model(toy):
    models = toy()
    stage1 = models.setup(ted.TedFilters(nonlinear=True, dropout=0.0))
    student = models.features(models.student)
    stage1(student, None, models.batch()).backward()
    assert all(x.grad is None for x in student.values())
    assert all(p.grad is not None for p in stage1.parameters())
