"""LGTM, ERNIE-Tiny and the one-loss neighbours through the public entry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kdexp.config.schema import Recipe
from kdexp.methods.lgtm_step import Together, adam_ahead, moved
from kdexp.tasks.base import Subset
from tests.toys import examples


def test_ernie_tiny_goes_through_its_stages(distil, store):
    result = distil("objective=ernie_tiny", "objective.stages.general_enhanced=0", "init.source=pretrained")
    assert [s["name"] for s in result["stages"]] == [
        "ernie_tiny.general", "teacher", "ernie_tiny.task_adaptive", "ernie_tiny.task_specific",
    ]  # fmt: skip
    general = store()["ernie_tiny.general"][0]
    assert general["settings"]["teaches"] == "pretrained"
    assert general["parents"] == {}
    assert set(result["mapping"]) == {"att_mse", "hid_seq"}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("objective.co_teacher.start=finetuned", "objective.co_teacher.rows=legacy_dev", "objective.start=fine_tuned"),
    ],
)
def test_lgtm_trains_both(distil, store, words):
    result = distil("objective=lgtm", "init.source=pretrained", "recipe.epochs=2", *words)
    learned = store()["lgtm"][0]["summary"]
    assert learned["steps"] == 8
    assert learned["co_teacher"]["rows"] == (6 if not words else 32)  # of 58 training rows, or the validation split
    assert (result["teacher"] is None) == (not words)


@pytest.mark.parametrize("objective", ["annealing", "continuation", "clkd", "review", "dpk"])
@pytest.mark.slow
def test_neighbours_run_with_their_defaults(distil, objective):
    assert distil(f"objective={objective}")["labels"]["objective"] == objective


def test_a_phase_too_short_for_its_schedule_is_refused_first(kdexp, arguments):
    for objective, where in (("annealing", "intermediate.annealing"), ("continuation", "prediction.continuation")):
        done = kdexp([*arguments, f"objective={objective}", f"objective.{where}.tau_max=5", "recipe.epochs=3"])
        assert done.returncode == 2
        assert "tau_max=5" in done.stderr


def test_lgtm_says_what_it_cannot_do(kdexp, arguments):
    words = ["objective.co_teacher.share=2", "objective.co_teacher.rows=dev", "recipe.accumulation=2"]
    done = kdexp([*arguments, "objective=lgtm", *words])
    assert done.returncode == 2
    for told in ("objective.co_teacher.share=2", "train_split, legacy_dev", "recipe.accumulation"):
        assert told in done.stderr


def test_the_trial_step_is_the_optimisers_next_step():
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 3)
    parameters = list(layer.parameters())
    groups = [{"params": parameters[:1], "weight_decay": 0.1}, {"params": parameters[1:], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.8, 0.95), eps=1e-6)
    for _ in range(3):
        gradients = [torch.randn_like(p) for p in parameters]
        expected = adam_ahead(optimizer, parameters, gradients, 1e-2)
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g
        optimizer.step()
        for p, e in zip(parameters, expected, strict=True):
            torch.testing.assert_close(p.detach(), e)


def test_moved_parameters_come_back():
    p = torch.nn.Parameter(torch.ones(3))
    with moved([p], [torch.zeros(3)]):
        assert p.sum() == 0
    assert torch.equal(p.detach(), torch.ones(3))


def test_a_subset_holds_the_same_examples():
    whole = examples()
    part = Subset(whole, np.array([3, 0, 7]))
    one, two = part.collate(np.array([0, 1, 2])), whole.collate(np.array([3, 0, 7]))
    for key in ("input_ids", "attention_mask"):
        assert torch.equal(one.inputs[key], two.inputs[key])
    assert torch.equal(one.labels["label"], two.labels["label"])
    assert one.index.tolist() == [0, 1, 2], "ids count anew"
    assert part.targets["label"].tolist() == whole.labels[[3, 0, 7]].tolist()


def test_the_influence_is_the_derivative_it_stands_for():
    """The finite difference along v equals the gradient of v . grad_student(teacher's loss), by two backward passes."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from kdexp.models import capture
    from kdexp.objectives.kd import KD
    from kdexp.train.step import Step, Term, run_step
    from tests.toys import HEAD, network

    student, teacher, rows = network(2, 1, 0.0), network(3, 2, 0.0), examples(12)
    with torch.no_grad():
        for model in (student, teacher):
            model.classifier.weight.mul_(20)
    settled = {"learning_rate": 0.0, "warmup": 0.0, "schedule": "constant", "clip": None, "batch_size": 12}
    recipe = Recipe().model_copy(update={**settled, "weight_decay": 0.0, "keep": "last"})
    own = {"a_t": 0.4, "temperature": 1.0, "learning_rate": 1e-3, "epsilon": 0.01, "influence_rate": "teacher"}
    own["modes"] = "quiet"  # the derivative below is without dropout
    loss = KD(alpha=1.0, temperature=1.0, times_T2=False)
    loss.head = HEAD
    together = Together(
        Step(student, HEAD, [Term("kd", 1.0, loss)]), recipe, Path("/nowhere"), None, "accuracy", lambda *a: None,
        run_step, teacher, rows=rows, own=own, seed=1, total=10,
    )  # fmt: skip
    batch = examples().collate(np.arange(20, 28))
    found = together.influence(batch, 0)
    for model in (student, teacher):
        model.eval()
    held = together._held_out(0, torch.device("cpu"))
    with sdpa_kernel(SDPBackend.MATH):
        hard = torch.nn.functional.cross_entropy(capture.forward(student, HEAD, held)["logits"], held.labels["label"])
        direction = torch.autograd.grad(hard, together.student_weights)
        ours, its = (capture.forward(m, HEAD, batch)["logits"] for m in (student, teacher))
        p = ours.softmax(-1)
        soft = (p * (p.log() - its.log_softmax(-1))).sum(-1).mean()
        first = torch.autograd.grad(0.4 * soft, together.student_weights, create_graph=True)
        along = sum((g * v).sum() for g, v in zip(first, direction, strict=True))
        expected = torch.autograd.grad(along, together.teacher_weights, allow_unused=True)
    pairs = [(f.flatten(), e.flatten()) for f, e in zip(found, expected, strict=True) if e is not None]
    one, two = (torch.cat(side) for side in zip(*pairs, strict=True))
    assert (one - two).norm() < 0.05 * two.norm()
