"""What holds for every term of every shipped objective."""

from __future__ import annotations

import inspect

import pytest
import torch
from hydra.utils import get_class

from kdexp.heads.base import unanswered
from kdexp.heads.regression import Regression
from kdexp.objectives.base import Shape

# Their value depends on who is in the batch, or on what earlier batches left behind; their docstrings say so, and
# ``batchwise`` tells the program.
BATCH_DEPENDENT = {
    "AID", "CKA", "CLKD", "DIST", "HidCLSContrast", "IKD", "PKT", "Procrustes", "RKD", "RankMimic", "Response", "SRD",
    "ScoreMatching", "Similarities", "SimilarityPreserving",
}  # fmt: skip

# Settings that no YAML names because a plan of stages gives them.
PLANNED = {"checkpoint", "checkpoints"}


def run(objective, student, teacher, batch):
    loss = objective(student, teacher, batch)
    assert loss.shape == ()
    assert torch.isfinite(loss)
    return loss


def micro_batch(batch, rows, length):
    """Some sentences of a batch, cut to a length."""
    some = batch.part(rows)
    some.mask = some.mask[:, :length]
    return some


def part(features, rows, length):
    """Some sentences of features, cut to a length."""
    out = {}
    for name, x in features.items():
        x = x[rows]
        if name.startswith("hidden"):
            x = x[:, :length]
        elif "." in name:
            x = x[:, :, :length]
        out[name] = x
    return out


def test_yaml_names_every_setting(spec):
    known = set(inspect.signature(get_class(spec["_target_"])).parameters) - {"args", "kwargs"} - PLANNED
    assert set(spec) - {"_target_", "weight", "mapping"} == known
    assert ("mapping" in spec) == (get_class(spec["_target_"]).layers != "none")


def test_gradient_reaches_student_and_parts_only(spec, toy, make):
    models = toy()
    objective = models.setup(make(spec))
    student, teacher = models.features(models.student), models.features(models.teacher)
    run(objective, student, teacher, models.batch()).backward()
    assert all(x.grad is None for x in teacher.values())
    wanted = {f"{kind}.{s}" for kind in objective.needs for s, _ in objective.pairs}
    wanted |= {models.answer} if objective.answers else set()
    reached = {name for name, x in student.items() if x.grad is not None and x.grad.abs().sum() > 0}
    assert reached == wanted
    missing = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def test_who_reads_no_answers_needs_none(spec, toy, make):
    models = toy()
    objective = models.setup(make(spec)).eval()
    sides = [models.features(models.student), models.features(models.teacher)]
    expected = objective(*sides, models.batch())
    for side in sides:
        side.pop(models.answer)
    if objective.answers:
        with pytest.raises(KeyError, match=models.answer):
            objective(*sides, models.batch())
    else:
        objective = models.setup(make(spec)).eval()  # a bank that the first pass has moved
        torch.testing.assert_close(objective(*sides, models.batch()), expected, rtol=0, atol=0)


def test_padding_does_not_matter(spec, toy, make):
    models = toy()
    objective = models.setup(make(spec)).eval()
    short = models.features(models.student), models.features(models.teacher), models.batch()
    longer = models.features(models.student, pad_to=9), models.features(models.teacher, pad_to=9)
    batch = models.batch(pad_to=9)
    with torch.no_grad():
        for short_side, long_side in zip(short, longer, strict=False):
            for name, x in short_side.items():
                for row, n in enumerate((6, 3, 4, 2)):
                    where = (row, slice(n)) if name.startswith("hidden") else (row, slice(None), slice(n))
                    long_side[name][where if "." in name else row] = x[where if "." in name else row]
    torch.testing.assert_close(objective(*longer, batch), objective(*short), rtol=1e-10, atol=1e-10)


def test_micro_batches_equal_one_batch(spec, toy, make):
    models = toy()
    objective = models.setup(make(spec)).eval()
    kind = type(objective).__name__
    assert objective.batchwise == (kind in BATCH_DEPENDENT)
    if objective.batchwise or kind == "Review":
        pytest.skip("says itself that it depends on the batch")
    student, teacher, batch = models.features(models.student), models.features(models.teacher), models.batch()
    whole = objective(student, teacher, batch)
    whole.backward()
    expected = {n: x.grad.clone() for n, x in student.items() if x.grad is not None}
    for x in student.values():
        x.grad = None
    total = 0.0
    for rows, length in ((slice(0, 1), 6), (slice(1, 3), 4), (slice(3, 4), 2)):
        micro = micro_batch(batch, rows, length)
        units = objective.units(micro)
        share = 1.0 if units is None else units.double() / objective.units(batch).double()
        loss = objective(part(student, rows, length), part(teacher, rows, length), micro) * share
        loss.backward()
        total = total + loss.detach()
    torch.testing.assert_close(total, whole.detach())
    for name, gradient in expected.items():
        torch.testing.assert_close(student[name].grad, gradient)


def test_half_precision_features_give_a_float32_loss(spec, toy, make):
    models = toy()
    objective = models.setup(make(spec)).float()
    sides = [
        {name: x.detach().bfloat16() for name, x in models.features(shape).items()}
        for shape in (models.student, models.teacher)
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run(objective, *sides, models.batch()).dtype == torch.float32


def test_unequal_models_work_or_are_refused(spec, toy, make):
    """Other width and head count: a finite loss, or an error that names both values."""
    models = toy(student=Shape(2, 12, 3), teacher=Shape(4, 8, 2))
    cls = get_class(spec["_target_"])
    if cls.same_heads or cls.__name__ in ("ValKL", "Patience"):
        with pytest.raises(ValueError, match=r"student has 3, the teacher 2|width is 12, the teacher's 8"):
            models.setup(make(spec))
        return
    if cls.__name__ == "MiniLMv2":
        spec = spec | {"heads": 4}
    objective = models.setup(make(spec))
    run(objective, models.features(models.student), models.features(models.teacher), models.batch())


def test_scores_instead_of_classes(spec, toy, make):
    models = toy(classes=1)
    if unanswered(get_class(spec["_target_"]).asks, Regression()):
        with pytest.raises(ValueError, match="needs .*, which the head regression does not have"):
            models.setup(make(spec))
        return
    objective = models.setup(make(spec))
    run(objective, models.features(models.student), models.features(models.teacher), models.batch()).backward()


@pytest.mark.slow
def test_compiled_equals_eager(spec, toy, make):
    models = toy()
    objective = models.setup(make(spec)).eval()
    inputs = models.features(models.student), models.features(models.teacher), models.batch()
    torch._dynamo.reset()
    compiled = torch.compile(objective, fullgraph=True)(*inputs)
    torch.testing.assert_close(compiled, objective(*inputs), rtol=1e-6, atol=1e-8)
    objective.train()
    torch.compile(objective, fullgraph=True)(*inputs).backward()


def test_schedules_know_their_phases(names, load):
    for name in names:
        config = load(name)
        assert config["name"] == name
        assert (config["schedule"] == "single") == (not config["intermediate"])
        assert config["prediction"]
