"""ReviewKD on maps: the fusion of the paper, written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdexp.heads.batch import Batch
from kdexp.heads.image_classification import ImageClassification
from kdexp.objectives.base import Context, Shape
from kdexp.objectives.review import hcl
from kdexp.objectives.review_maps import MAPS, POOLED, ReviewMaps

STUDENT, TEACHER = Shape(3, 16, 1, (4, 8, 16)), Shape(6, 32, 1, (8, 8, 16, 16, 32, 32))
PAIRS = [(1, 2), (2, 4), (3, 6)]


def made(**settings) -> ReviewMaps:
    torch.manual_seed(0)
    objective = ReviewMaps(**settings)
    targets = {"label": np.zeros(5, dtype=np.int64)}
    objective.setup(Context(STUDENT, TEACHER, list(PAIRS), ImageClassification(["a", "b"]), 5, targets))
    objective.begin_epoch(119, 240)
    return objective


def maps(shape: Shape, layers: list[int], seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    sides = dict(zip(layers, (8, 4, 2), strict=True))
    out = {f"{MAPS}.{j}": torch.randn(5, shape.widths[j - 1], s, s, generator=draw) for j, s in sides.items()}
    return {**out, POOLED: torch.randn(5, shape.hidden_size, 1, 1, generator=draw)}


def both() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], Batch]:
    student = {n: x.requires_grad_() for n, x in maps(STUDENT, [1, 2, 3], 1).items()}
    return student, maps(TEACHER, [2, 4, 6], 2), Batch({}, None, {"label": torch.zeros(5)}, torch.arange(5))


def by_hand(objective: ReviewMaps, student, teacher) -> torch.Tensor:
    levels = [(POOLED, POOLED), *((f"{MAPS}.{mine}", f"{MAPS}.{its}") for mine, its in reversed(PAIRS))]
    residual, losses = None, []
    for stage, (mine, its) in zip(objective.stages, levels, strict=True):
        x = F.conv2d(student[mine], stage.inner[0].weight)
        x = F.batch_norm(x, None, None, stage.inner[1].weight, stage.inner[1].bias, training=True)
        if residual is not None:
            larger = residual.repeat_interleave(x.shape[2] // residual.shape[2], 2)
            larger = larger.repeat_interleave(x.shape[3] // residual.shape[3], 3)
            joined = torch.cat([x, larger], 1)
            gates = torch.sigmoid(F.conv2d(joined, stage.gate.weight, stage.gate.bias))
            x = x * gates[:, 0:1] + larger * gates[:, 1:2]
        residual = x
        out = F.conv2d(x, stage.outer[0].weight, padding=1)
        out = F.batch_norm(out, None, None, stage.outer[1].weight, stage.outer[1].bias, training=True)
        total, used, weight = F.mse_loss(out, teacher[its]), 1.0, 1.0
        for size in (4, 2, 1):
            if size < out.shape[2]:
                weight, side = weight / 2, out.shape[2] // size
                pooled = [y.reshape(5, y.shape[1], size, side, size, side).mean((3, 5)) for y in (out, teacher[its])]
                total, used = total + weight * F.mse_loss(*pooled), used + weight
        losses.append(total / used)
    return torch.stack(losses).sum()


def test_the_loss_by_hand():
    objective, (student, teacher, batch) = made(), both()
    assert objective.pairs == [(3, 6), (2, 4), (1, 2)] and len(objective.stages) == 4
    assert [stage.gate is None for stage in objective.stages] == [True, False, False, False]
    assert {stage.inner[0].out_channels for stage in objective.stages} == {16}
    assert [stage.outer[0].out_channels for stage in objective.stages] == [32, 32, 16, 8]
    torch.testing.assert_close(objective(student, teacher, batch), by_hand(objective, student, teacher))


def test_deep_levels_take_part_in_shallow_ones():
    """The gradient of the shallowest level's loss alone reaches all the student's maps, and none of the teacher's."""
    objective, (student, teacher, _) = made(), both()
    residual, out = None, None
    for stage, name in zip(objective.stages, [POOLED, f"{MAPS}.3", f"{MAPS}.2", f"{MAPS}.1"], strict=True):
        out, residual = stage(student[name], residual)
    hcl([out], [teacher[f"{MAPS}.2"]]).backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in student.values())
    assert all(x.grad is None for x in teacher.values())


def test_weight_and_width():
    objective, (student, teacher, batch) = made(middle=6), both()
    assert objective.stages[0].inner[0].out_channels == 6
    full = objective(student, teacher, batch)
    objective.begin_epoch(0, 240)
    assert (objective(student, teacher, batch) / full).item() == pytest.approx(1 / 20, rel=1e-4)
    assert objective.units(batch) == 5 and objective.reads() == "all"
