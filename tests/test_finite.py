"""A training that diverges stops where it does, says so, and leaves the last good checkpoint."""

from __future__ import annotations

import pytest
import torch

from kdexp.train import loop
from kdexp.train.student import Diverged, seed_of
from tests.test_loop import RECIPE, schedule, student, teacher, weights
from tests.toys import examples


def spoil(one, at: int, make) -> None:
    """Let the student's term ``hid_seq`` be spoilt in update ``at`` (from 1)."""
    objective, honest = one.objectives["hid_seq"], one.objectives["hid_seq"].forward

    def forward(*inputs):
        loss = honest(*inputs)
        return make(loss) if one.progress.step + 1 == at else loss

    objective.forward = forward


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda loss: loss * float("nan"), "step 3: hid_seq is not finite at a learning rate of"),
        (lambda loss: loss + float("inf"), "step 3: hid_seq is not finite"),
    ],
)
def test_a_bad_loss_stops_the_run_and_names_step_and_term(tmp_path, make, told):
    one = student(tmp_path)
    spoil(one, 3, make)
    with pytest.raises(Diverged, match=told):
        loop.train(one, teacher([one]), examples(), schedule(log_every=4))
    assert one.progress.step == 4, "found when the next line of metrics was due"
    rate = loop.optim.rate(2, 8, RECIPE)
    with pytest.raises(Diverged, match=f"{rate:.3g}"):
        one.check_finite()


def test_a_bad_gradient_under_a_good_loss_is_found(tmp_path):
    one = student(tmp_path)

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    spoil(one, 2, Broken.apply)
    with pytest.raises(Diverged, match="step 2: the gradient norm is not finite"):
        loop.train(one, teacher([one]), examples(), schedule(log_every=2))


def test_the_last_good_checkpoint_stays(tmp_path):
    one = student(tmp_path)
    spoil(one, 4, lambda loss: loss * float("nan"))
    with pytest.raises(Diverged, match="The last good checkpoint is kept"):
        loop.train(one, teacher([one]), examples(), schedule(log_every=100, checkpoint_s=0.0))
    again = student(tmp_path)
    assert again.progress.step == 3
    assert all(value.isfinite().all() for value in weights(again).values() if value.is_floating_point())


def test_bad_weights_are_never_written(tmp_path):
    one = student(tmp_path)
    with torch.no_grad():
        one.model.classifier.weight[0, 0] = float("inf")
    for act in (one.checkpoint, one.finish, lambda: one.evaluate(0, None)):
        with pytest.raises(Diverged, match="the weight classifier.weight is not finite"):
            act()
    assert not (tmp_path / "checkpoint").exists() and not (tmp_path / "best.safetensors").exists()


def test_the_gradient_norm_is_logged(tmp_path):
    written = []
    one = student(tmp_path, recipe=RECIPE.model_copy(update={"clip": None}))
    one.write = lambda step, epoch, values: written.append(values)
    norms = []
    honest = one.update

    def update(rate, clip):
        gradients = [p.grad for p in one.model.parameters() if p.grad is not None]
        gradients += [p.grad for p in one.objectives.parameters() if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        honest(rate, clip)

    one.update = update
    loop.train(one, teacher([one]), examples(), schedule(log_every=2))
    logged = [values["train/grad_norm"] for values in written if "train/grad_norm" in values]
    expected = [(a + b) / 2 for a, b in zip(norms[::2], norms[1::2], strict=True)]
    assert logged == pytest.approx(expected, rel=1e-5)


def test_seeds_of_micro_batches_never_meet():
    assert seed_of(1, 2, 3) == ((1 * 1_000_003 + 2) * 64 + 3) * 2, "what earlier runs drew stays"
    seeds = {(step, micro): seed_of(1, step, micro) for step in range(40) for micro in range(200)}
    assert len(set(seeds.values())) == len(seeds)
    assert all(seed % 2 == 0 for seed in seeds.values()), "the odd one above is the teacher's"
    torch.manual_seed(max(seeds.values()) + 1)
