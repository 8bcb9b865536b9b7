"""Memory banks, negatives and the noise behind them; the token adaptations with state."""

from __future__ import annotations

import pytest
import torch

from kdexp.objectives import dpk, noise, review
from kdexp.objectives.hid_cls_contrast import HidCLSContrast


@pytest.fixture
def setting(toy):
    models = toy()
    objective = models.setup(HidCLSContrast(features=4, negatives=5))
    return models, objective, (models.features(models.student), models.features(models.teacher), models.batch())


def test_negatives_have_other_labels_and_are_distinct(setting):
    models, objective, (_, _, batch) = setting
    for epoch in range(20):
        objective.begin_epoch(epoch, 20)
        rows = objective.draw(batch.index, batch.labels["label"])
        assert torch.equal(rows[:, 0], batch.index)
        assert (models.labels()[rows[:, 1:]] != batch.labels["label"][:, None]).all()
        assert all(len(set(row.tolist())) == 6 for row in rows)


def test_every_negative_gets_its_turn(setting):
    models, objective, (_, _, batch) = setting
    counts = torch.zeros(12)
    for epoch in range(400):
        objective.begin_epoch(epoch, 400)
        counts[objective.draw(batch.index[:1], batch.labels["label"][:1])[0, 1:]] += 1
    pool = models.labels() != batch.labels["label"][0]
    assert (counts[~pool] == 0).all()
    expected = 400 * 5 / pool.sum()
    assert ((counts[pool] - expected).abs() < 0.2 * expected).all()


def test_negatives_do_not_depend_on_the_batch(setting):
    _, objective, (_, _, batch) = setting
    whole = objective.draw(batch.index, batch.labels["label"])
    assert torch.equal(objective.draw(batch.index[2:3], batch.labels["label"][2:3])[0], whole[2])
    objective.begin_epoch(1, 2)
    assert not torch.equal(objective.draw(batch.index, batch.labels["label"]), whole)


def test_a_small_pool_is_drawn_from_with_replacement(toy):
    models = toy()
    objective = models.setup(HidCLSContrast(features=4, negatives=50))
    batch = models.batch()
    rows = objective.draw(batch.index, batch.labels["label"])
    assert rows.shape == (4, 51)
    assert (models.labels()[rows[:, 1:]] != batch.labels["label"][:, None]).all()


def test_banks_follow_in_training_only(setting):
    _, objective, inputs = setting
    before = objective.student_bank.clone(), objective.normaliser.clone()
    objective.eval()(*inputs)
    assert torch.equal(objective.student_bank, before[0])
    assert torch.equal(objective.normaliser, before[1])
    objective.train()(*inputs)
    seen = torch.zeros(12, dtype=torch.bool)
    seen[inputs[2].index] = True
    assert torch.equal((objective.student_bank != before[0]).any(-1), seen)
    torch.testing.assert_close(objective.student_bank[seen].norm(dim=-1), torch.ones(4).double())
    first = objective.normaliser.clone()
    assert (first > 0).all()
    objective(*inputs)
    assert torch.equal(objective.normaliser, first)


def test_state_survives_a_checkpoint(setting, toy):
    models, objective, inputs = setting
    objective(*inputs)
    other = models.setup(HidCLSContrast(features=4, negatives=5))
    other.load_state_dict(objective.state_dict())
    torch.testing.assert_close(other(*inputs), objective(*inputs))


def test_one_label_is_refused(toy):
    models = toy()
    models.labels = lambda: torch.zeros(12, dtype=torch.long)
    with pytest.raises(ValueError, match="at least 2 labels"):
        models.setup(HidCLSContrast())


def test_noise_is_uniform_and_its_own():
    epoch = torch.tensor(3)
    values = noise.uniform(1, epoch, torch.arange(200), 300)
    assert values.min() >= 0
    assert values.max() < 1
    histogram = torch.histc(values.float(), 10, 0, 1) / values.numel()
    assert (histogram - 0.1).abs().max() < 0.005
    pairs = torch.stack([values[:, :-1].flatten(), values[:, 1:].flatten(), values.roll(1, 0)[:, 1:].flatten()])
    assert (torch.corrcoef(pairs) - torch.eye(3)).abs().max() < 0.02
    for other in (noise.uniform(2, epoch, torch.arange(200), 300), noise.uniform(1, epoch + 1, torch.arange(200), 300)):
        assert abs(torch.corrcoef(torch.stack([values.flatten(), other.flatten()]))[0, 1]) < 0.02


def test_similarity_of_states():
    x, mask = torch.randn(3, 5, 4, dtype=torch.float64), torch.tensor([[1] * 5, [1] * 3 + [0] * 2, [1] * 4 + [0]])
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    torch.testing.assert_close(dpk.linear_cka(x, 3 * x @ turn, mask), torch.tensor(1.0).double())
    changed = x.clone()
    changed[1, 3:] = 100
    other = torch.randn(3, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(dpk.linear_cka(changed, other, mask), dpk.linear_cka(x, other, mask))


def test_the_teachers_share_follows_similarity(toy):
    models = toy()
    objective = models.setup(dpk.DPK())
    inputs = models.features(models.student), models.features(models.teacher), models.batch()
    objective.eval()(*inputs)
    assert (objective.ratios == 0.5).all()
    objective.train()(*inputs)
    assert (objective.ratios != 0.5).all()


def test_segments_cover_real_tokens_only():
    x = torch.arange(6.0)[None, :, None].clone()
    x[0, 4:] = 99
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    assert review.segment_means(x, mask, 2).flatten().tolist() == [0.5, 2.5]
    assert review.segment_means(x, mask, 1).flatten().tolist() == [1.5]
    y = torch.randn(1, 7, 2)
    plain = torch.nn.functional.adaptive_avg_pool1d(y.transpose(1, 2), 4).transpose(1, 2)
    torch.testing.assert_close(review.segment_means(y, torch.ones(1, 7), 4), plain)


def test_review_visits_deep_layers_first(toy):
    models = toy()
    objective = models.setup(review.Review())
    assert objective.pairs == [(2, 4), (1, 2)]
    objective.begin_epoch(0, 240)
    assert objective.weight.item() == pytest.approx(0.05)
    student = models.features(models.student)
    zero = {n: x.detach().clone() for n, x in models.features(models.teacher).items()}
    objective(student, zero, models.batch()).backward()
    assert student["hidden.2"].grad.abs().sum() > 0
