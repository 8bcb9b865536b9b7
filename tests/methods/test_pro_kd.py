"""Checkpoint-following KD and its controls through the public entry."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from kdexp.config.schema import Recipe
from kdexp.methods import pro_kd
from kdexp.objectives.pro_kd import checkpoint_temperature
from kdexp.train import optim


def parts(result: dict) -> list[str]:
    return [s["name"] for s in result["stages"] if s["name"] != "teacher"]


def test_the_student_follows_the_checkpoints_in_order(distil, store, tmp_path):
    result = distil(
        "objective=pro_kd",
        "objective.epochs.prediction=1",
        "objective.trajectory.dtype=bf16",
        "runtime.keep_weights=all",
    )
    assert parts(result) == ["pro_kd.part1.checkpoint1", "pro_kd.part2.checkpoint2", "distill.prediction"]
    stages = store()
    teacher = stages["teacher"][0]
    assert [c["step"] for c in teacher["summary"]["checkpoints"]] == [4, 8]  # 58 rows, 16 a batch, 2 epochs
    assert {"trajectory/01/model.safetensors", "trajectory/02/model.safetensors", "model.safetensors"} <= set(
        teacher["files"]
    )
    settings = [stages[name][0]["settings"] for name in parts(result)[:2]]
    assert [s["teaches"] for s in settings] == ["trajectory/01", "trajectory/02"]
    assert [s["terms"]["pro_kd"]["checkpoint"] for s in settings] == [1, 2]
    log = (tmp_path / result["run"]["folder"] / "run.log").read_text()
    assert "2 checkpoints in bf16" in log
    assert "MiB free" in log


def test_controls_share_the_trajectory(distil, store):
    found = {}
    for name in ("pro_kd_final", "pro_kd_reversed", "pro_kd_best"):
        result = distil(f"objective={name}", "objective.epochs.prediction=1", "objective.optimiser=one_schedule")
        found[result["labels"]["objective"]] = parts(result)
    assert found["pro_kd_final"][:2] == ["pro_kd.part1.checkpoint2", "pro_kd.part2.checkpoint2"]
    assert found["pro_kd_reversed"][:2] == ["pro_kd.part1.checkpoint2", "pro_kd.part2.checkpoint1"]
    assert found["pro_kd_best"] == [
        "pro_kd.part1.checkpoint1", "pro_kd.part2.checkpoint1", "pro_kd.part1.checkpoint2", "pro_kd.part2.checkpoint2",
        "pro_kd.choose", "distill.prediction",
    ]  # fmt: skip
    stages = store()
    assert len(stages["teacher"]) == 1
    chosen = stages["pro_kd.choose"][0]["summary"]
    assert chosen["candidates"][chosen["chosen"]] == max(chosen["candidates"].values())
    assert stages["pro_kd.part2.checkpoint1"][0]["settings"]["span"] == [1, 2]


def test_following_the_final_teacher_is_annealing(distil, store, tmp_path):
    """Parts of one schedule are one phase: the same student, bit for bit, as Annealing-KD's first phase makes.

    Without decay, for rows of the vocabulary that no text uses decay by one factor a phase, and rounding counts the
    phases; the teacher without clipping too, for one that keeps its weights on the way is trained with all rows.
    """
    same = [
        "recipe.weight_decay=0.0",
        "teacher.recipe.weight_decay=0.0",
        "teacher.recipe.clip=null",
        "objective.epochs.prediction=1",
        "teacher.recipe.keep=last",
        "runtime.keep_weights=all",
        "recipe.warmup=0.1",
    ]
    control = distil("objective=pro_kd_final", *same)
    annealing = distil("objective=annealing", "objective.epochs.intermediate=2", *same)
    stages = store()
    parts_ = [stages[f"pro_kd.part{n}.checkpoint2"][0] for n in (1, 2)]
    (whole,) = stages["distill.intermediate"]
    assert "optimizer.safetensors" in parts_[0]["files"] and "optimizer.safetensors" not in parts_[1]["files"]
    assert parts_[0]["files"]["model.safetensors"] != parts_[1]["files"]["model.safetensors"]
    assert parts_[1]["files"]["model.safetensors"] == whole["files"]["model.safetensors"]
    assert control["scores"] == annealing["scores"]
    # and a teacher that ends early under the schedule of the whole is its checkpoint
    early = distil("objective=kd", *same, "teacher.recipe.epochs=1", "teacher.recipe.layout_epochs=2")
    folder = tmp_path / "multirun" / ".store"
    (of_kd,) = (key for key in (stage["key"] for stage in early["stages"] if stage["name"] == "teacher"))
    (of_pro_kd,) = (meta["key"] for meta in store()["teacher"] if "checkpoints" in meta["summary"])
    ended, checkpoint = (
        load_file(path / "model.safetensors") for path in (folder / of_kd, folder / of_pro_kd / "trajectory" / "01")
    )
    assert all(torch.equal(ended[name], checkpoint[name]) for name in ended) and ended.keys() <= checkpoint.keys()


def test_fresh_parts_are_not(distil, store):
    same = [
        "objective.epochs.prediction=1",
        "teacher.recipe.keep=last",
        "runtime.keep_weights=all",
        "recipe.warmup=0.1",
    ]
    distil("objective=pro_kd_final", "objective.optimiser=fresh", *same)
    distil("objective=annealing", "objective.epochs.intermediate=2", *same)
    stages = store()
    last, (whole,) = stages["pro_kd.part2.checkpoint2"][0], stages["distill.intermediate"]
    assert last["files"]["model.safetensors"] != whole["files"]["model.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("softening", ["none", "kl_temperature"])
def test_other_softenings_and_the_best_part(distil, softening):
    words = [
        f"objective.intermediate.pro_kd.softening={softening}",
        "objective.stage2_start=best",
        "teacher.recipe.steps=6",
    ]
    result = distil("objective=pro_kd", *words, "objective.trajectory.unit=step", "objective.trajectory.every=4")
    assert parts(result) == [
        "pro_kd.part1.checkpoint1",
        "pro_kd.part2.checkpoint2",
        "pro_kd.choose",
        "distill.prediction",
    ]


def test_orders():
    assert pro_kd.sequence("forward", 3, 1) == [1, 2, 3]
    assert pro_kd.sequence("reversed", 3, 1) == [3, 2, 1]
    assert pro_kd.sequence("final", 3, 1) == [3, 3, 3]
    assert sorted(pro_kd.sequence("shuffled", 6, 1)) == [1, 2, 3, 4, 5, 6]
    assert pro_kd.sequence("shuffled", 6, 1) == pro_kd.sequence("shuffled", 6, 1) != pro_kd.sequence("shuffled", 6, 2)


@pytest.mark.parametrize(
    ("kept", "recipe", "expected"),
    [
        ({"every": 1, "unit": "epoch"}, {"epochs": 3, "steps": None}, [10, 20, 30]),
        ({"every": 2, "unit": "epoch"}, {"epochs": 3, "steps": None}, [20, 30]),
        ({"every": 4, "unit": "step"}, {"epochs": 3, "steps": 10}, [4, 8, 10]),
        ({"every": 1, "unit": "epoch"}, {"epochs": 3, "steps": 25}, [25]),
    ],
)
def test_the_plan_knows_the_number_of_checkpoints(kept, recipe, expected):
    total = recipe["steps"] or 10 * recipe["epochs"]
    assert pro_kd.marks(total, 10, kept, Recipe(**recipe)) == expected
    objective = pro_kd.Settings(name="pro_kd", schedule="two_phase", trajectory=pro_kd.Trajectory(**kept))
    config = SimpleNamespace(objective=objective, teacher=SimpleNamespace(recipe=Recipe(**recipe)))
    assert pro_kd.checkpoints(config) == len(expected)


def test_one_schedule_runs_through_all_parts():
    recipe = Recipe(warmup=0.1, learning_rate=1.0, schedule="linear")
    whole = [optim.rate(step, 20, recipe) for step in range(20)]
    halves = [optim.rate(step, 10, recipe, (part, 2)) for part in range(2) for step in range(10)]
    assert halves == whole


def test_softening_ends_unsoftened():
    assert [checkpoint_temperature(c, 4, 7.0) for c in (1, 2, 3, 4)] == [7.0, 5.0, 3.0, 1.0]


def test_a_trajectory_that_does_not_fit_is_refused(tmp_path):
    lines: list[str] = []
    with pytest.raises(ValueError, match=r"need 3,814,697,266 MiB.*trajectory\.dtype=bf16"):
        pro_kd._estimate(10**12, 1000, "fp32", tmp_path, lines.append)
    assert "1000 checkpoints in fp32" in lines[0]


def test_what_cannot_work_is_said_first(kdexp, arguments):
    words = [
        "objective.order=backward",
        "objective.trajectory.unit=step",
        "teacher.recipe.patience=1",
        "selection=last",
    ]
    done = kdexp([*arguments, "objective=pro_kd", "objective.stage2_start=best", *words])
    assert done.returncode == 2
    for told in (
        "objective.order=backward is unknown",
        "give teacher.recipe.steps",
        "teacher.recipe.patience",
        "selection=last",
    ):
        assert told in done.stderr
