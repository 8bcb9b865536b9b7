"""Losses of logits, relations, geometry and embeddings: identities, degenerate inputs, terms that do nothing."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from kdexp.heads.base import unanswered
from kdexp.heads.batch import Batch
from kdexp.heads.classification import logit_kl
from kdexp.heads.span import Span
from kdexp.objectives import (
    aid,
    band_mse,
    cka,
    dist,
    dkd,
    embed_distill,
    gram,
    hid_seq,
    hidden_cosine,
    jsd,
    ld,
    multilabel_kl,
    pfi,
    pkt,
    procrustes,
    rank_mimic,
    response,
    rkd,
    score_matching,
    similarity_preserving,
    srd,
    standard_kl,
    temperature_kl,
    unbiased,
)  # fmt: skip
from kdexp.objectives.ikd import IKD
from kdexp.objectives.kd import KD
from kdexp.objectives.unbiased import Unbiased

RELATIONS = {
    "rkd": lambda s, t: rkd.rkd(s, t, 1.0, 2.0),
    "similarity_preserving": similarity_preserving.similarity_preserving,
    "pkt": pkt.pkt,
    "cka": cka.cka_loss,
    "cka_unbiased": lambda s, t: cka.cka_loss(s, t, unbiased=True),
    "procrustes": procrustes.procrustes,
    "procrustes_root": lambda s, t: procrustes.procrustes(s, t, squared=False),
    "gram": gram.gram_loss,
    "gram_frobenius": lambda s, t: gram.gram_loss(s, t, None, "frobenius", "frobenius"),
    "score_matching": score_matching.score_matching,
    "embed_cosine": embed_distill.embed_distill,
    "embed_l2": lambda s, t: embed_distill.embed_distill(s, t, "l2"),
    "srd": lambda s, t: srd.srd(s, t, eps=1e-5),
    "hidden_cosine": lambda s, t: hidden_cosine.hidden_cosine(s[None], t[None]),
}
ROTATION_FREE = ("rkd", "similarity_preserving", "pkt", "cka", "cka_unbiased", "procrustes", "gram", "score_matching")


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", RELATIONS)
@pytest.mark.parametrize("case", ["zeros", "duplicates", "one", "equal", "all zero"])
def test_degenerate_vectors_have_small_finite_gradients(name, case):
    """In float32. Normalising by a clamped length alone has gradients of 1e9 to 4e10 here, or NaN."""
    student, teacher = logits(6, 8).float(), logits(6, 8, seed=1).float()
    if case == "zeros":
        student[1] = 0
        student[4] = 0
    elif case == "duplicates":
        student[1] = student[0]
        student[2] = student[0]
        teacher[1] = teacher[0]
    elif case == "one":
        student, teacher = student[:1].clone(), teacher[:1].clone()
    elif case == "equal":
        teacher = student.clone()
    else:
        student.zero_()
    student.requires_grad_()
    loss = RELATIONS[name](student, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all() and student.grad.abs().max() < 1e4


@pytest.mark.parametrize("name", ROTATION_FREE)
def test_a_rotation_costs_nothing_and_the_order_does_not_matter(name):
    x, order = logits(7, 5), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    turn = torch.linalg.qr(logits(5, 5, seed=3))[0]
    assert RELATIONS[name](x @ turn, x).item() == pytest.approx(0, abs=1e-9)
    y = logits(7, 5, seed=4)
    torch.testing.assert_close(RELATIONS[name](x[order], y[order]), RELATIONS[name](x, y))


@pytest.mark.parametrize(("n", "wide"), [(4, 9), (9, 4), (5, 5)])
def test_procrustes_has_the_derivative_of_the_sum_of_singular_values(n, wide):
    x, y = logits(n, wide).requires_grad_(), logits(n, wide, seed=1)
    value = procrustes.procrustes(x, y, center=False, normalize=False)
    expected = x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x.T @ y).sum()
    torch.testing.assert_close(value, expected)
    assert torch.autograd.gradcheck(lambda a: procrustes.procrustes(a, y), x.detach().requires_grad_())
    if n >= wide:
        torch.testing.assert_close(torch.autograd.grad(value, x)[0], torch.autograd.grad(expected, x)[0])


def test_identities_of_logits():
    student, teacher, labels = logits(6, 5), logits(6, 5, seed=1), torch.tensor([0, 1, 4, 2, 0, 3])
    kl = logit_kl(student, teacher, 2.0)
    torch.testing.assert_close(dkd.dkd(student, teacher, labels, temperature=2.0, part="coupled"), kl)
    groups = [0, 1, 0, 1, 1]
    whole = unbiased.stratified_kl(student, teacher, groups, 2.0, weights="teacher", with_marginal=True)
    torch.testing.assert_close(whole, kl)
    torch.testing.assert_close(aid.aid_kl(student, teacher, labels, 0.0, 2.0), kl)
    forward, backward = logit_kl(student, teacher), logit_kl(teacher, student)
    torch.testing.assert_close(jsd.jsd(student, teacher, 1e-6, scaled=True), forward, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(jsd.jsd(student, teacher, 1 - 1e-6, scaled=True), backward, rtol=1e-4, atol=1e-4)
    assert jsd.jsd(student, teacher) < math.log(2)
    both = [torch.cat([torch.zeros(6, 1, dtype=torch.float64), z[:, :1]], 1) for z in (student, teacher)]
    torch.testing.assert_close(multilabel_kl.multilabel_kl(student[:, :1], teacher[:, :1]), logit_kl(*both))
    same = torch.full((6,), 2.0, dtype=torch.float64)
    torch.testing.assert_close(temperature_kl.temperature_kl(student, teacher, same, "example", True), kl)
    scaled = standard_kl.standard_kl(student * 3 + 1, teacher)
    torch.testing.assert_close(scaled, standard_kl.standard_kl(student, teacher), rtol=1e-5, atol=1e-6)


def test_low_and_high_bands_are_the_whole_error():
    x, y = logits(2, 6, 3), logits(2, 6, 3, seed=1)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    parts = [band_mse.band_mse(x, y, mask, 0.4, band) for band in ("low", "high")]
    torch.testing.assert_close(sum(parts), hid_seq.hidden_mse(x, y, mask))


def test_saturated_students_stay_finite():
    student, teacher = torch.tensor([[300.0, -300.0, 0.0]]), torch.tensor([[-5.0, 5.0, 1.0]])
    labels = torch.tensor([0])
    student.requires_grad_()
    for loss in (
        dkd.dkd(student, teacher, labels, temperature=1.0),
        multilabel_kl.multilabel_kl(student, teacher),
        jsd.jsd(student, teacher),
        dist.dist_loss(student, teacher),
        standard_kl.standard_kl(student, teacher),
    ):
        (gradient,) = torch.autograd.grad(loss, student)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        (dkd.DKD(), "beta=8 does nothing"),
        (dist.DIST(), "beta=1 teaches nothing"),
        (temperature_kl.TemperatureKL(), "which is kd"),
    ],
    ids=["dkd", "dist", "temperature_kl"],
)
def test_terms_that_do_nothing_are_named(objective, told, toy, caplog):
    with caplog.at_level(logging.WARNING):
        toy(classes=2).setup(objective)
    assert told in caplog.text


def test_beta_of_dkd_and_inter_of_dist_are_dead_on_two_classes():
    student, teacher, labels = logits(5, 2).requires_grad_(), logits(5, 2, seed=1), torch.tensor([0, 1, 1, 0, 1])
    torch.testing.assert_close(dkd.dkd(student, teacher, labels, temperature=2.0), logit_kl(student, teacher, 2.0))
    (gradient,) = torch.autograd.grad(dist.dist_loss(student, teacher, part="inter"), student)
    assert gradient.abs().max() < 1e-5
    (gradient,) = torch.autograd.grad(dist.dist_loss(student, teacher, part="intra"), student)
    assert gradient.abs().max() > 1e-2


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        (standard_kl.StandardKL(), "nothing to learn from 2 classes"),
        (dist.DIST(part="inter"), "nothing to learn from 2 classes"),
        (dist.DIST(gamma=0.0), "nothing to learn from 2 classes"),
        (dkd.DKD(alpha=0.0), "nothing to learn from 2 classes"),
        (dkd.DKD(standardize=True), "nothing to learn from 2 classes"),
        (Unbiased(), "nothing to learn of 2 classes"),
        (temperature_kl.TemperatureKL([1.0, 2.0, 3.0]), "has 3 numbers, the task 2 classes"),
        (response.Response(old_classes=3), "old_classes=3, and the task has 2"),
    ],
    ids=["standard_kl", "inter", "gamma", "alpha", "z-scored", "unbiased", "temperatures", "old classes"],
)
def test_where_nothing_is_left_is_refused(objective, told, toy):
    with pytest.raises(ValueError, match=told):
        toy(classes=2).setup(objective)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Unbiased(pairs=3, scale=5.0), "pairs=3 and scale=5.0 has no effect with unbiased.form=stratified"),
        (lambda: Unbiased(seed=1), "seed=1 has no effect with unbiased.form=stratified"),
        (lambda: Unbiased(form="pairs", temperature=4.0), "temperature=4.0 has no effect with unbiased.form=pairs"),
        (lambda: Unbiased(form="pairs", with_marginal=True), "with_marginal=True has no effect"),
        (lambda: dist.DIST(part="intra", gamma=2.0), "gamma=2.0 has no effect with dist.part=intra"),
        (lambda: response.Response(temperature=4.0), "temperature=4.0 has no effect with response.form=l2"),
        (lambda: ld.LD(gamma=0.0, threshold=0.5), "threshold=0.5 has no effect with ld.gamma=0"),
    ],
    ids=["pairs", "seed", "temperature", "marginal", "gamma", "l2", "threshold"],
)
def test_settings_without_effect_are_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_groups_of_single_classes_are_refused(toy):
    with pytest.raises(ValueError, match="cuts the 3 classes into groups of one class each"):
        toy(classes=3).setup(Unbiased(groups=3))
    toy(classes=3).setup(Unbiased(groups=3, with_marginal=True))


def test_drawn_pairs_stay_inside_groups_and_follow_the_teacher(toy):
    term = toy().setup(Unbiased(form="pairs", pairs=50))  # classes 0 | 1 | 2, 3
    teacher = torch.tensor([[0.0, 9.0, 1.0, 2.0], [0.0, 9.0, 2.0, 1.0]])
    index = torch.tensor([4, 7])
    pairs = term.drawn(teacher, index)
    assert pairs.shape == (2, 50, 2)
    assert pairs[0].unique(dim=0).tolist() == [[3, 2]] and pairs[1].unique(dim=0).tolist() == [[2, 3]]
    wide = toy().setup(Unbiased(groups=1, form="pairs", pairs=50))
    drawn = wide.drawn(teacher, index)
    torch.testing.assert_close(drawn, wide.drawn(teacher, index))
    wide.begin_epoch(1, 3)
    assert not torch.equal(drawn, wide.drawn(teacher, index))
    ranks = teacher.argsort(-1, descending=True).argsort(-1)
    assert (ranks.gather(1, drawn[..., 0]) < ranks.gather(1, drawn[..., 1])).all()


def test_a_permuted_student_costs_in_rank_mimicking():
    """The drafts sort both sides apart, which makes every permutation free."""
    student, teacher, labels = logits(6, 3), logits(6, 3, seed=1), torch.tensor([0, 0, 1, 1, 2, 2])
    again = rank_mimic.rank_mimic_batch(teacher[[1, 0, 3, 2, 5, 4]], teacher, labels)
    assert again > 1e-3
    drafts = rank_mimic.rank_mimic_batch(teacher[[1, 0, 3, 2, 5, 4]], teacher, labels, variant="sorted")
    assert drafts.item() == pytest.approx(0, abs=1e-12)
    assert rank_mimic.rank_mimic_batch(student, teacher, torch.tensor([0, 1, 2, 0, 1, 2])) > 0


def test_valuable_positions_hold_the_best_and_padding_is_none():
    teacher = logits(3, 2, 7)
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
    valuable = ld.valuable_positions(teacher, mask, 0.5)
    best = teacher.masked_fill(~mask.bool()[:, None], -math.inf).argmax(-1)
    assert valuable.gather(1, best).all() and not (valuable.bool() & ~mask.bool()).any()
    assert torch.equal(ld.valuable_positions(torch.zeros(3, 2, 7), mask), mask)


@pytest.mark.parametrize("weighted", [False, True])
def test_ld_of_spans(weighted):
    """T^2 * (KL over real positions + gamma * KL over the valuable ones), by hand, with numbers at padding ignored."""
    lengths, temperature, gamma = (5, 3), 2.0, 0.5
    mask = torch.tensor([[1] * n + [0] * (5 - n) for n in lengths])
    sides = []
    for seed in (0, 1):
        both = logits(2, 2, 5, seed=seed) / 2
        both[1, :, 3:] = 50.0
        sides.append(dict(zip(Span.names, both.unbind(1), strict=True)))
    batch = Batch({}, mask, {}, torch.arange(2))
    term = ld.LD(temperature=temperature, gamma=gamma, threshold=0.5, weighted=weighted)
    term.head = Span()
    assert not unanswered(term.asks, term.head)
    expected = 0.0
    for row, n in enumerate(lengths):
        ours, theirs = ([side[name][row, :n] for name in Span.names] for side in sides)
        best = [x.softmax(-1) >= 0.5 * x.softmax(-1).max() for x in theirs]
        weight = max(x.softmax(-1).max() for x in ours) if weighted else 1.0
        for places, share in ((torch.ones(n, dtype=torch.bool), 1.0), (best[0] | best[1], gamma)):
            for s, t in zip(ours, theirs, strict=True):
                p, q = ((x[places] / temperature).softmax(-1) for x in (t, s))
                expected += weight * share * (p * (p / q).log()).sum() / 4  # two sides, two windows
    torch.testing.assert_close(term(*sides, batch), expected * temperature**2)


def test_pfi_of_answers_weighs_each_text_by_its_own_score():
    x, y, ours, theirs = logits(6, 3, 4), logits(6, 3, 4, seed=1), logits(2, 3, seed=2), logits(2, 3, seed=3)
    mask = torch.ones(6, 3, dtype=torch.long)
    errors = (x - y).square().mean((1, 2))
    expected = ((ours - theirs).square().reshape(-1) * errors).mean()
    torch.testing.assert_close(pfi.pfi(x, y, mask, ours, theirs, "logit"), expected)


def test_pfi_fades_where_predictions_agree():
    x, y, z = logits(2, 3, 4), logits(2, 3, 4, seed=1), logits(2, 3, seed=2)
    mask = torch.ones(2, 3, dtype=torch.long)
    assert pfi.pfi(x, y, mask, z, z) == 0
    guide = logits(2, 3, seed=3).requires_grad_()
    assert torch.autograd.grad(pfi.pfi(x, y, mask, guide, z), guide)[0].abs().sum() > 0
    free = x.clone().requires_grad_()
    loss = pfi.pfi(free, y, mask, guide, z, detach_weight=True)
    assert torch.autograd.grad(loss, guide, allow_unused=True)[0] is None


def test_few_sentences_are_never_two_deviations_above_the_mean():
    assert response.elastic_selection(torch.tensor([0.0, 0.0, 0.0, 0.0, 9.0])).sum() == 0
    assert response.elastic_selection(torch.tensor([0.0] * 5 + [9.0])).sum() == 1


def test_unrelated_features_look_alike_to_the_biased_estimate():
    """Width 384: .92 of CKA at 32 rows, about 0 unbiased."""
    x, y = logits(32, 384), logits(32, 384, seed=1)
    assert 1 - cka.cka_loss(x, y) > 0.9
    assert abs(1 - cka.cka_loss(x, y, unbiased=True)) < 0.1


def test_the_two_views_of_ikd_are_weighed(toy):
    models = toy(classes=3)
    both, one = models.setup(IKD(lam=0.5)), models.setup(KD())
    sides, batch = [models.features(shape) for shape in (models.student, models.teacher)], models.batch()
    parts = [[{n: x[r] for n, x in side.items()} for side in sides] for r in (slice(0, 2), slice(2, 4))]
    first, second = (one(*part, batch.part(r)) for part, r in zip(parts, (slice(0, 2), slice(2, 4)), strict=True))
    torch.testing.assert_close(both(*sides, batch), first + 0.5 * second)


def test_a_pool_that_nothing_is_pooled_by_is_refused():
    with pytest.raises(ValueError, match="pool=cls has no effect with rows=tokens"):
        cka.CKA(pool="cls")
    assert cka.CKA(rows="sentences", pool="cls").reads() == "first"
