"""Several processes that train as one: equal to one process with the same batch, for whatever is trained."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from safetensors.torch import load_file, save_file

from kdexp.config.schema import Recipe
from kdexp.methods import agnostic
from kdexp.models import capture, precision
from kdexp.models.families.base import ATTENTION, Shape
from kdexp.objectives.att_kl import AttKL
from kdexp.objectives.base import Context
from kdexp.objectives.hid_seq import HidSeq
from kdexp.objectives.kd import KD
from kdexp.train import distributed, loop, teachers
from kdexp.train.distributed import ALONE, Ranks
from kdexp.train.step import Step, Term
from kdexp.train.student import Student
from tests.toys import HEAD, examples, network

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=1e-3)
MATCHED = {
    "kd": lambda: {"kd": KD()},
    "hid_seq": lambda: {"hid_seq": HidSeq()},
    "att_kl": lambda: {"att_kl": AttKL()},
    "projected": lambda: {"hid_seq": HidSeq(), "kd": KD()},  # the teacher is wider: a learned map
}


def teacher_of(width: int) -> torch.nn.Module:
    from transformers import AutoModelForSequenceClassification, BertConfig

    config = BertConfig(
        num_hidden_layers=4, hidden_size=width, num_attention_heads=2, intermediate_size=32, vocab_size=50,
        max_position_embeddings=32, num_labels=3, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(99)
    capture.install()
    return AutoModelForSequenceClassification.from_config(config, attn_implementation=ATTENTION)


def trained(name: str, folder: Path, recipe: Recipe, ranks: Ranks, dropout: float, stop_at: int | None = None) -> dict:
    """Train a toy student; return what it ended with, as rank 0 has it."""
    folder.mkdir(parents=True, exist_ok=True)
    width, model, terms = 24 if name == "projected" else 16, network(2, 1 + ranks.rank, dropout, spread=0.2), []
    for term, objective in MATCHED[name]().items():
        pairs = [] if term == "kd" else [(1, 2)]  # the student's second layer has no gradient, its classifier neither
        torch.manual_seed(5 + ranks.rank)
        objective.setup(Context(Shape(2, 16, 2), Shape(4, width, 2), pairs, HEAD, 30, {"label": np.zeros(30)}))
        terms.append(Term(term, 1.5, objective))
    data, lines = examples(), []

    def judge(m: torch.nn.Module) -> dict[str, float]:
        m.eval()
        with torch.no_grad():
            batch = data.collate(np.arange(len(data)))
            answers = capture.forward(m, HEAD, batch)["logits"]
        return {"accuracy": float((answers.argmax(-1) == batch.labels["label"]).float().mean())}

    step = Step(model, HEAD, terms)
    student = Student(step, recipe, folder, judge, "accuracy", lambda *line: lines.append(line))
    if ranks.size > 1:
        student.join(ranks)
    objectives = list(student.objectives.values())
    target = teachers.LiveTeacher(
        teacher_of(width), HEAD, capture.wanted(objectives, 1), None, answers=capture.answers_wanted(objectives, 1)
    )
    stop = (lambda: student.progress.step >= stop_at) if stop_at else (lambda: False)
    settings = loop.LoopSettings(recipe, 7, torch.device("cpu"), log_every=1, ranks=ranks, stop=stop)
    with pytest.raises(loop.Interrupted) if stop_at else contextlib.nullcontext():
        loop.train(student, target, data, settings)
    if not stop_at:
        student.finish()
    weights = {**student.model.state_dict(), **{f"parts.{k}": v for k, v in student.parts.state_dict().items()}}
    losses = [line[2]["train/loss"] for line in lines if "train/loss" in line[2]]
    return {"losses": losses, "weights": weights, "progress": student.progress, "files": sorted(os.listdir(folder))}


CASES: dict[str, tuple[str, Recipe, float, int | None]] = {
    # 30 examples in batches of 8: the last one has 6, so that with 4 slices some are smaller
    **{name: (name, RECIPE, 0.0, None) for name in MATCHED},
    "accumulation": ("projected", RECIPE.model_copy(update={"accumulation": 2}), 0.0, None),
    "dropout": ("kd", RECIPE, 0.1, None),
    "few": ("kd", RECIPE.model_copy(update={"batch_size": 29}), 0.0, None),  # the last batch has 1 example
    "cut": ("kd", RECIPE.model_copy(update={"epochs": 3}), 0.1, 5),
}


def _rank(rank: int, size: int, folder: str, names: list[str]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    place = Path(folder)
    ranks = distributed.meet(dist.FileStore(str(place / "meeting"), size), rank, size, rank)
    for name in names:
        terms, recipe, dropout, stop_at = CASES[name]
        run = place / name / ("run" if rank == 0 else f"beside{rank}")
        result = trained(terms, run, recipe, ranks, dropout, stop_at)
        save_file({k: v.contiguous() for k, v in result["weights"].items()}, place / name / f"weights{rank}")
        kept = {"losses": result["losses"], "files": result["files"], "steps": result["progress"].step}
        (place / name / f"rank{rank}.json").write_text(json.dumps(kept))
    (place / f"sharded{rank}.json").write_text(json.dumps(_sharded(ranks)))
    distributed.part()


def _sharded(ranks: Ranks) -> dict:
    """Compare what a teacher says whole and with its weights spread, and count the weights that lie here."""
    want, some, said, here = frozenset({"hidden.1", "query.3"}), examples().collate(np.arange(5)), [], []
    for spread in (False, True):
        model = network(3, 5).requires_grad_(False)
        precision.lower(model, torch.bfloat16)
        if spread:
            ranks.shard(model, torch.device("cpu"))
        here.append(sum(getattr(p, "_local_tensor", p).numel() for p in model.parameters()))
        said.append(teachers.LiveTeacher(model, HEAD, want, torch.bfloat16)(some))
    return {"here": here, "same": [bool(torch.equal(said[0][name], said[1][name])) for name in said[0]]}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """What two processes made of every case."""
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(_rank, (2, str(folder), [*CASES]), nprocs=2)
    return folder


def result(folder: Path, name: str, rank: int) -> dict:
    found = json.loads((folder / name / f"rank{rank}.json").read_text())
    return found | {"weights": load_file(folder / name / f"weights{rank}")}


def close(one: dict, other: dict) -> None:
    assert one["losses"] and len(one["losses"]) == len(other["losses"])
    np.testing.assert_allclose(one["losses"], other["losses"], rtol=1e-4)
    assert one["weights"].keys() == other["weights"].keys()
    for name, value in one["weights"].items():
        torch.testing.assert_close(
            value, other["weights"][name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("dropout", "cut")])
def test_two_processes_equal_one_with_the_same_batch(name, pairs, tmp_path):
    terms, recipe, dropout, _ = CASES[name]
    whole = recipe.model_copy(update={"accumulation": 1})
    alone, first, second = (
        trained(terms, tmp_path, whole, ALONE, dropout),
        result(pairs, name, 0),
        result(pairs, name, 1),
    )
    close(first, alone)
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key]), f"{key} drifted apart"
    start = network(2, 1, 0.0, spread=0.2).state_dict()
    assert any(not torch.allclose(first["weights"][key], start[key]) for key in start)


def test_with_dropout_two_processes_equal_one_that_takes_their_slices_in_turn(pairs, tmp_path):
    recipe = RECIPE.model_copy(update={"accumulation": 2})
    close(result(pairs, "dropout", 0), trained("kd", tmp_path, recipe, ALONE, 0.1))


def test_a_teacher_whose_weights_are_spread_says_the_same(pairs):
    both = [json.loads((pairs / f"sharded{rank}.json").read_text()) for rank in range(2)]
    assert all(len(one["same"]) == 3 and all(one["same"]) for one in both)
    whole, parts = both[0]["here"][0], [one["here"][1] for one in both]
    assert sum(parts) == whole and max(parts) < 0.6 * whole


def test_only_rank_0_writes(pairs):
    for name in CASES:
        assert result(pairs, name, 1)["files"] == []
        assert result(pairs, name, 0)["files"]


def test_what_two_processes_began_one_goes_on_with(pairs, tmp_path):
    terms, recipe, dropout, stop_at = CASES["cut"]
    slices = recipe.model_copy(update={"accumulation": 2})
    whole = trained(terms, tmp_path / "whole", slices, ALONE, dropout)
    assert result(pairs, "cut", 0)["steps"] == result(pairs, "cut", 1)["steps"] == stop_at
    shutil.copytree(pairs / "cut" / "run", tmp_path / "cut")
    rest = trained(terms, tmp_path / "cut", slices, ALONE, dropout)
    close(rest, whole | {"losses": whole["losses"][stop_at:]})


def test_the_others_go_on_from_a_checkpoint_with_nothing_left_to_train(tmp_path):
    """Cut at its last update: the next line of metrics is of updates that only rank 0 knows."""

    class Second(Ranks):
        def told(self, value=None):
            return value | {"step": 8, "unlogged": 3}

        def shared(self, tensors):
            return dict(tensors)

        def summed(self, values):
            return values

        def earliest(self, steps):
            return steps

        def beside(self, step, run):
            return run

    student = Student(
        Step(network(2, 1, 0.0), HEAD, [Term("kd", 1.0, _ready(KD()))]), RECIPE, tmp_path, None, "accuracy", print
    )
    student.join(Second(1, 2, 1))
    assert student.log(1)["train/kd"] == 0


def _ready(objective):
    objective.setup(Context(Shape(2, 16, 2), Shape(4, 16, 2), [], HEAD, 30, {"label": np.zeros(30)}))
    return objective


def test_a_budget_of_hours_is_timed_by_all_and_decided_by_rank_0(tmp_path, monkeypatch):
    """Ranks that made different numbers of updates would wait for each other for ever."""
    timed = []
    monkeypatch.setattr(agnostic, "_seconds", lambda phase: timed.append(phase) or 2.0)

    class Second(Ranks):
        def told(self, value=None):
            return None if value is None else 0.5  # rank 0 has no note of an earlier attempt, and a faster machine

    phase = SimpleNamespace(
        settings={"budget": {"hours": 1.0}}, recipe=RECIPE, work=tmp_path, stage=SimpleNamespace(name="s"),
        context=SimpleNamespace(ranks=Second(1, 2), say=print),
    )  # fmt: skip
    assert agnostic._budgeted(phase).steps == 7200 and len(timed) == 1
    assert not list(tmp_path.iterdir()), "only rank 0 writes"
    phase.context.ranks = ALONE
    assert agnostic._budgeted(phase).steps == agnostic._budgeted(phase).steps == 1800 and len(timed) == 2
