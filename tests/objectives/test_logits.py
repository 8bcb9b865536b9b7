"""Prediction-layer objectives: limits, switches, regression."""

from __future__ import annotations

import pytest
import torch

from kdexp.cli import reference
from kdexp.heads.classification import Classification
from kdexp.objectives import annealing, continuation, finetune, kd, lgtm, patience, pro_kd


def logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (4, 3)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_identical_logits_have_no_divergence():
    for temperature in (1.0, 7.0):
        torch.testing.assert_close(kd.logit_kl(logits(1), logits(1), temperature), torch.tensor(0.0).double())


def test_a_shift_of_all_logits_does_not_matter():
    torch.testing.assert_close(kd.logit_kl(logits(1) + 3, logits(2), 2.0), kd.logit_kl(logits(1), logits(2), 2.0))


def test_large_temperature_reaches_its_limit():
    limit = reference.logit_kl_limit(logits(1), logits(2))
    torch.testing.assert_close(kd.logit_kl(logits(1), logits(2), 1e4), limit, rtol=1e-3, atol=0)


def test_soft_ce_has_the_gradient_of_kl():
    grads = []
    for form in (kd.logit_kl, kd.logit_soft_ce):
        x = logits(1).requires_grad_()
        form(x, logits(2), 3.0).backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


def test_reductions_are_multiples():
    by = {r: kd.logit_kl(logits(1), logits(2), 2.0, reduction=r) for r in kd.REDUCTIONS}
    torch.testing.assert_close(by["sum"], 4 * by["batchmean"])
    torch.testing.assert_close(by["batchmean"], 3 * by["mean"])
    with pytest.raises(ValueError, match="batchmean, mean, sum"):
        kd.logit_kl(logits(1), logits(2), reduction="average")


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"alpha=1\.5"):
        kd.KD(alpha=1.5)
    with pytest.raises(ValueError, match="temperature=0"):
        kd.KD(temperature=0)
    with pytest.raises(ValueError, match="logit_mse"):
        kd.KD(form="logit_mse")


def test_a_sum_has_no_units(toy):
    models = toy()
    assert models.setup(kd.KD(reduction="sum")).units(models.batch()) is None
    assert models.setup(kd.KD()).units(models.batch()) == 4


def test_two_terms_add_up_to_pkd(toy):
    models = toy()
    student, teacher, batch = models.features(models.student), models.features(models.teacher), models.batch()
    labelled = models.setup(kd.KD(alpha=0.7, temperature=10.0, reduction="mean"))
    term = models.setup(patience.Patience())
    total = labelled(student, teacher, batch) + 500 * term(student, teacher, batch)
    ours, theirs = student["hidden.1"][:, :1], teacher["hidden.2"][:, :1]
    args = student["logits"], teacher["logits"], batch.labels["label"], ours, theirs
    torch.testing.assert_close(total, reference.pkd_total(*args, alpha=0.7, beta=500, temperature=10.0))


def test_scores_are_compared_one_by_one(toy):
    models = toy(classes=1)
    scores, target = logits(1, 4, 1), logits(2, 4, 1)
    batch = models.batch()
    sides = {"logits": scores}, {"logits": target}
    hard = ((scores[:, 0] - batch.labels["label"]) ** 2).mean()
    soft = ((scores - target) ** 2).mean()
    torch.testing.assert_close(models.setup(finetune.Finetune())(*sides, batch), hard)
    torch.testing.assert_close(models.setup(kd.KD(alpha=0.25))(*sides, batch), 0.75 * hard + 0.25 * soft)
    summed = models.setup(kd.KD(alpha=0.25, reduction="sum"))(*sides, batch)
    torch.testing.assert_close(summed, 4 * (0.75 * hard + 0.25 * soft))


def test_a_broadcast_of_scores_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        finetune.score_mse(logits(1), logits(2, 4))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        finetune.score_mse(logits(1, 4, 1), logits(2, 3))


def test_annealing_follows_its_schedule(toy):
    models = toy()
    term = models.setup(annealing.Annealing(tau_max=3))
    factors = []
    for epoch in range(6):
        term.begin_epoch(epoch, 6)
        factors.append(round(term.factor.item() * 3))
    assert factors == [1, 1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match="tau_max=3 steps"):
        term.begin_epoch(0, 2)


def test_continuation_without_margin_is_annealing():
    soft = continuation.continuation_soft(logits(1), logits(2), 0.5, 0.0, "mean_mse")
    torch.testing.assert_close(soft, reference.annealing_mse(logits(1), logits(2), 0.5))


def test_continuation_scales_the_papers_ramp(toy):
    term = toy().setup(continuation.Continuation())
    seen = []
    for epoch in range(30):
        term.begin_epoch(epoch, 30)
        seen.append(term.psi.item())
    assert seen == pytest.approx(continuation.continuation_psi(30, 40, 20))


def test_checkpoints_soften_less_and_less(toy):
    models = toy()
    student, teacher, batch = models.features(models.student), models.features(models.teacher), models.batch()
    losses = [models.setup(pro_kd.ProKD(c, 4))(student, teacher, batch) for c in (1, 4)]
    z = student["logits"], teacher["logits"]
    torch.testing.assert_close(losses[0], reference.annealing_mse(*z, 0.25))
    torch.testing.assert_close(losses[1], reference.annealing_mse(*z, 1.0))
    assert [pro_kd.checkpoint_temperature(c, 4, 7.0) for c in (1, 2, 3, 4)] == [7, 5, 3, 1]
    assert torch.equal(
        models.setup(pro_kd.ProKD(4, 4, "kl_temperature"))(student, teacher, batch), kd.logit_kl(*z, 1.0)
    )


def test_lgtm_trains_the_teacher_only(toy):
    models = toy()
    student, teacher = models.features(models.student), models.features(models.teacher)
    head = Classification(["a", "b", "c"])
    lgtm.teacher_loss(head, student, teacher, models.batch(), a_t=0.4, temperature=1.0).backward()
    assert student["logits"].grad is None
    assert teacher["logits"].grad is not None
