"""The loop: resuming, cohorts, accumulation and compilation change nothing that they should not."""

from __future__ import annotations

import contextlib
import copy
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from kdexp.common.turns import Turns
from kdexp.config.schema import Recipe
from kdexp.models import capture
from kdexp.models.families.base import Shape
from kdexp.objectives.att_kl import AttKL
from kdexp.objectives.base import Context
from kdexp.objectives.hid_seq import HidSeq
from kdexp.objectives.kd import KD
from kdexp.train import checkpoint, loop, teachers
from kdexp.train.loop import Interrupted
from kdexp.train.shared import SharedTeacher
from kdexp.train.step import Step, Term, run_step
from kdexp.train.student import Student
from tests.damage import DAMAGE
from tests.toys import HEAD, examples, network

RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=1e-2)
WEIGHTS = {"att_kl": 1.0, "hid_seq": 0.5, "kd": 2.0}


def student(folder: Path, seed: int = 1, recipe: Recipe | None = None, dropout: float = 0.1, run=run_step) -> Student:
    folder.mkdir(parents=True, exist_ok=True)
    model = network(2, seed, dropout)
    terms = []
    for name, objective in {"att_kl": AttKL(), "hid_seq": HidSeq(), "kd": KD()}.items():
        pairs = [] if name == "kd" else [(1, 2), (2, 4)]
        objective.setup(Context(Shape(2, 16, 2), Shape(4, 16, 2), pairs, HEAD, 30, {"label": np.zeros(30)}))
        terms.append(Term(name, WEIGHTS[name], objective))
    data = examples()

    def judge(m: torch.nn.Module) -> dict[str, float]:
        m.eval()
        with torch.no_grad():
            batch = data.collate(np.arange(len(data)))
            logits = capture.forward(m, HEAD, batch)["logits"]
        return {"accuracy": float((logits.argmax(-1) == batch.labels["label"]).float().mean())}

    step = Step(model, HEAD, terms)
    return Student(step, recipe or RECIPE, folder, judge, "accuracy", lambda *a: None, run)


def teacher(of: list[Student]) -> teachers.LiveTeacher:
    objectives = [o for m in of for o in m.objectives.values()]
    return teachers.LiveTeacher(network(4, 99), HEAD, capture.wanted(objectives, 1), None)


def weights(m: Student) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in m.model.state_dict().items()}


def schedule(recipe: Recipe | None = None, **more) -> loop.LoopSettings:
    return loop.LoopSettings(recipe or RECIPE, 7, torch.device("cpu"), **more)


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def test_same_seed_same_bits(tmp_path):
    results = []
    for n in range(2):
        m = student(tmp_path / str(n))
        loop.train(m, teacher([m]), examples(), schedule())
        results.append(weights(m))
    assert same(*results)


@pytest.mark.parametrize("stop_at", [1, 4, 5, 7])
def test_a_stopped_phase_continues_bit_for_bit(tmp_path, stop_at):
    whole = student(tmp_path / "whole")
    loop.train(whole, teacher([whole]), examples(), schedule())
    whole.finish()

    first = student(tmp_path / "cut")
    with pytest.raises(loop.Interrupted, match=f"step {stop_at} of 8"):
        loop.train(first, teacher([first]), examples(), schedule(stop=lambda: first.progress.step >= stop_at))
    second = student(tmp_path / "cut", seed=5)  # other random weights: all must come from the checkpoint
    assert second.progress.step == stop_at
    loop.train(second, teacher([second]), examples(), schedule())
    second.finish()
    assert same(weights(whole), weights(second))
    assert whole.progress.best == second.progress.best
    assert whole.progress.history == second.progress.history


def test_a_cohort_equals_its_students_alone(tmp_path):
    alone = []
    for seed in (1, 2):
        m = student(tmp_path / f"alone{seed}", seed)
        loop.train(m, teacher([m]), examples(), schedule())
        alone.append(weights(m))
    cohort = [student(tmp_path / f"cohort{seed}", seed) for seed in (1, 2)]
    calls, target, takes = [], network(4, 99), Turns(2)
    target.register_forward_hook(lambda *a: calls.append(1))
    shared = SharedTeacher(target, HEAD, True, None, takes)

    def train(number: int, m: Student) -> None:
        with takes.taking(number):
            seat = shared.seat(capture.wanted(m.objectives.values(), 1), True, 1)
            loop.train(m, seat, examples(), schedule(turn=seat.turn))

    threads = [threading.Thread(target=train, args=each) for each in enumerate(cohort)]
    for step in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            step(thread)
    assert same(alone[0], weights(cohort[0])) and same(alone[1], weights(cohort[1]))
    assert len(calls) == 8, "one teacher forward a batch, however many students"


def test_who_has_left_a_cohort_is_answered_for_any_batch(tmp_path):
    """After its training a student is measured on rows that nobody else asks about."""
    m, takes = student(tmp_path), Turns(1)
    want, data = capture.wanted(m.objectives.values(), 1), examples()
    shared = SharedTeacher(network(4, 99), HEAD, True, None, takes)
    with takes.taking(0):
        seat = shared.seat(want, True, 1)
        seat.turn(0, 0)
        seat(data.collate(np.arange(8)))
        seat.leave()
        other = data.collate(np.arange(8, 13))
        said, alone = seat(other), teachers.LiveTeacher(network(4, 99), HEAD, want, None)(other)
    assert said.keys() == alone.keys() and same(said, alone)


def test_accumulation_equals_one_batch(tmp_path):
    found = []
    for parts in (1, 2, 4):
        recipe = RECIPE.model_copy(update={"accumulation": parts, "epochs": 1, "clip": None})
        m = student(tmp_path / str(parts), recipe=recipe, dropout=0.0)
        m.model.double(), m.objectives.double()
        target = teachers.LiveTeacher(network(4, 99).double(), HEAD, capture.wanted(m.objectives.values(), 1), None)
        data = examples()
        for batch, whole in loop._micro_batches(data, np.arange(8), schedule(recipe)):
            m.backward(batch, target(batch), whole, 7, 0, 0)
        found.append(torch.cat([p.grad.flatten() for p in m.model.parameters() if p.grad is not None]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-6)


def test_each_matched_layers_loss_is_logged(tmp_path):
    written: dict[str, float] = {}
    m = student(tmp_path)
    m.write = lambda step, epoch, values: written.update(values)
    loop.train(m, teacher([m]), examples(), schedule(log_every=1))
    assert {"train/att_kl/1", "train/att_kl/2", "train/hid_seq/1", "train/hid_seq/2", "train/loss"} <= set(written)
    assert "train/kd/1" not in written


def test_early_stopping_and_best_weights(tmp_path):
    recipe = RECIPE.model_copy(update={"epochs": 12, "patience": 2, "learning_rate": 0.1, "clip": None})
    m = student(tmp_path, recipe=recipe)
    loop.train(m, teacher([m]), examples(), schedule(recipe))
    assert m.progress.stopped and m.progress.step < 48
    best = m.progress.best["scores"]
    m.finish()
    assert m.judge(m.model) == best


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "best.safetensors"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_phase_starts_again(name, damage, tmp_path, caplog):
    plain = student(tmp_path / "plain")
    loop.train(plain, teacher([plain]), examples(), schedule())
    stopped = student(tmp_path / "cut")
    with pytest.raises(Interrupted):
        loop.train(stopped, teacher([stopped]), examples(), schedule(stop=lambda: stopped.progress.step == 7))
    assert stopped.progress.best and student(tmp_path / "cut").progress.step == 7
    DAMAGE[damage](tmp_path / "cut" / "checkpoint" / name)
    again = student(tmp_path / "cut")
    assert f"checkpoint/{name} is damaged" in caplog.text and (tmp_path / "cut" / "checkpoint.damaged").is_dir()
    assert again.progress.step == 0
    loop.train(again, teacher([again]), examples(), schedule())
    again.finish(), plain.finish()
    assert same(weights(plain), weights(again))


def test_the_best_weights_of_a_checkpoint_are_not_those_of_a_later_evaluation(tmp_path):
    """A killed process may have written better ones since; where arithmetic differs they need not come again."""
    first = student(tmp_path)
    with pytest.raises(Interrupted):
        loop.train(first, teacher([first]), examples(), schedule(stop=lambda: first.progress.step == 7))
    best = tmp_path / "best.safetensors"
    kept = best.read_bytes()
    checkpoint.save_weights(best, student(tmp_path / "other", seed=5).model)
    assert best.read_bytes() != kept
    assert student(tmp_path).progress.step == 7 and best.read_bytes() == kept


def test_damaged_best_weights_are_named_and_the_same_command_goes_on(tmp_path):
    first = student(tmp_path)
    loop.train(first, teacher([first]), examples(), schedule())
    first.checkpoint()
    best = tmp_path / "best.safetensors"
    content = bytearray(best.read_bytes())
    content[-3] ^= 1
    best.unlink()  # the checkpoint has a name of its own for the old content
    best.write_bytes(content)
    with pytest.raises(ValueError, match=r"best.safetensors is damaged .*same command"):
        first.finish()
    second = student(tmp_path)
    loop.train(second, teacher([second]), examples(), schedule())
    second.finish()
    assert second.progress.step == first.progress.step


def test_a_resumed_run_writes_the_lines_of_an_undisturbed_one(tmp_path):
    """The mean of a line that began before the kill is that of all its updates."""
    lines = {}
    for name, stops in (("plain", ()), ("cut", (2, 5, 7))):
        lines[name] = []
        for stop in (*stops, None):
            m = student(tmp_path / name)
            m.write = lambda step, epoch, values, to=lines[name]: to.append((step, values))
            with contextlib.suppress(Interrupted):
                loop.train(
                    m, teacher([m]), examples(),
                    schedule(stop=lambda m=m, stop=stop: m.progress.step == stop, log_every=3),
                )  # fmt: skip
    assert [step for step, values in lines["plain"] if "train/loss" in values] == [3, 6]
    assert lines["cut"] == lines["plain"]


def test_a_kill_after_training_keeps_the_best_weights(tmp_path):
    first = student(tmp_path)
    loop.train(first, teacher([first]), examples(), schedule())
    first.checkpoint()
    first.finish()
    second = student(tmp_path, seed=9)  # the process died before its result was committed
    loop.train(second, teacher([second]), examples(), schedule())
    second.finish()
    assert same(weights(first), weights(second))
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(ValueError, match=r"best.safetensors is missing"):
        second.finish()


def test_a_kill_between_the_last_checkpoint_and_the_last_line_loses_no_number(tmp_path):
    lines: list[dict[str, float]] = []
    first = student(tmp_path)
    loop.train(first, teacher([first]), examples(), schedule(log_every=3))
    first.checkpoint()
    for m in (first, student(tmp_path, seed=9)):
        m.write = lambda step, epoch, values: lines.append(values)
        loop.train(m, teacher([m]), examples(), schedule(log_every=3))
        m.log(1)
    assert "train/hid_seq/2" in lines[0] and lines[1] == lines[0]


def test_gradients_reach_student_and_learned_parts_only(tmp_path):
    m = student(tmp_path)
    target = teacher([m])
    batch, whole = loop._micro_batches(examples(), np.arange(8), schedule())[0]
    before = copy.deepcopy(target.model.state_dict())
    m.backward(batch, target(batch), whole, 7, 0, 0)
    assert all(p.grad is None for p in target.model.parameters())
    touched = [n for n, p in m.model.named_parameters() if p.grad is not None]
    assert any("layer.1" in n for n in touched) and any("classifier" in n for n in touched)
    assert not target.model.training and same(before, target.model.state_dict())


@pytest.mark.slow
def test_compiled_equals_eager(tmp_path):
    from kdexp.train.compiling import compiled_step

    results = []
    for name, run in (("eager", run_step), ("compiled", compiled_step("cpu"))):
        m = student(tmp_path / name, run=run)
        capture.prepare(m.model, m.step.want)
        loop.train(m, teacher([m]), examples(), schedule())
        results.append(weights(m))
    for key in results[0]:
        torch.testing.assert_close(results[0][key], results[1][key], rtol=1e-3, atol=1e-4)


def test_tapped_attention_equals_the_models_own(tmp_path):
    own, tapped = network(2, 3), network(2, 3)
    own.set_attn_implementation("eager")
    batch = examples().collate(np.arange(6))
    own.eval(), tapped.eval()
    want = frozenset({"query.1", "key.1", "hidden.2"})
    mine = capture.forward(tapped, HEAD, batch, want)
    theirs = own(**batch.inputs, output_attentions=True, output_hidden_states=True)
    mask = batch.mask.bool()
    torch.testing.assert_close(mine["logits"], theirs.logits)
    torch.testing.assert_close(mine["hidden.2"][mask], theirs.hidden_states[2][mask])
    scores = mine["query.1"] @ mine["key.1"].transpose(-1, -2) / 8**0.5
    probabilities = scores.masked_fill(~mask[:, None, None], float("-inf")).softmax(-1)
    torch.testing.assert_close(probabilities, theirs.attentions[0], rtol=1e-4, atol=1e-6)


def test_asking_for_what_an_architecture_cannot_give():
    with pytest.raises(ValueError, match="hands out no query.1"):
        capture.check({"logits": torch.zeros(1)}, frozenset({"query.1"}), "teacher")


def test_a_parallel_wrapper_around_the_step_changes_nothing(tmp_path):
    """DistributedDataParallel wraps a step as it is: a group of one process learns the same bits."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    plain = student(tmp_path / "plain")
    loop.train(plain, teacher([plain]), examples(), schedule())
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = student(tmp_path / "wrapped")
        parallel = DistributedDataParallel(wrapped.step)
        wrapped.run = lambda step, *inputs: run_step(parallel, *inputs)
        loop.train(wrapped, teacher([wrapped]), examples(), schedule())
    finally:
        dist.destroy_process_group()
    assert same(weights(plain), weights(wrapped))


def test_a_hook_after_each_update_hears_of_every_one(tmp_path):
    heard, m = [], student(tmp_path)
    loop.train(m, teacher([m]), examples(), schedule(after_update=lambda one, step: heard.append((one, step))))
    assert heard == [(m, step) for step in range(1, 9)]
