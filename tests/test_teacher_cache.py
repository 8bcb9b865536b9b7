"""What a teacher says is stored once: equal to asking it, whoever stores it, whatever happens to the files."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kdexp.common import machine
from kdexp.common.files import Interrupted
from kdexp.config.schema import Recipe
from kdexp.heads.classification import LABEL
from kdexp.models import capture
from kdexp.models.families.base import Shape
from kdexp.objectives.att_kl import AttKL
from kdexp.objectives.att_mse import AttMSE
from kdexp.objectives.base import Context, Objective
from kdexp.objectives.dpk import DPK
from kdexp.objectives.hid_cls import HidCLS
from kdexp.objectives.hid_cls_contrast import HidCLSContrast
from kdexp.objectives.hid_seq import HidSeq
from kdexp.objectives.hid_seq_combine import HidSeqCombine
from kdexp.objectives.kd import KD
from kdexp.objectives.minilm import MiniLM
from kdexp.objectives.minilm_v2 import MiniLMv2
from kdexp.objectives.patience import Patience
from kdexp.objectives.review import Review
from kdexp.objectives.ted import TedMatch
from kdexp.objectives.val_kl import ValKL
from kdexp.store import features as disk
from kdexp.tasks.base import Dataset, Subset
from kdexp.train import loop, ragged, teacher_cache
from kdexp.train.context import RunContext
from kdexp.train.question import Question, reads
from kdexp.train.step import Step, Term
from kdexp.train.student import Student
from kdexp.train.teacher_cache import Answer
from kdexp.train.teachers import CachedTeacher, LiveTeacher
from tests.toys import HEAD, examples, network

DATA = examples(200)
ONE = int(DATA.costs.sum()) * 16 * 4 / 1000
"""Kilobytes of one hidden state of all examples."""
RECIPE = Recipe(epochs=1, batch_size=16, learning_rate=1e-2, keep="last")

OBJECTIVES: dict[str, Callable[[], list[Objective]]] = {
    "kd": lambda: [KD()],
    "pkd": lambda: [KD(), Patience()],
    "hid_cls": lambda: [HidCLS()],
    "hid_cls_contrast": lambda: [HidCLSContrast()],
    "hid_seq": lambda: [HidSeq()],
    "hid_seq_combine": lambda: [HidSeqCombine()],
    "att_kl": lambda: [AttKL()],
    "att_mse": lambda: [AttMSE()],
    "val_kl": lambda: [ValKL()],
    "minilm": lambda: [MiniLM()],
    "minilm_v2": lambda: [MiniLMv2()],
    "dpk": lambda: [DPK()],
    "review": lambda: [Review()],
    "lwd": lambda: [TedMatch("identity")],
    "first and whole": lambda: [HidCLS(), HidSeq()],
}


def set_up(objectives: list[Objective], data: Dataset = DATA) -> list[Objective]:
    torch.manual_seed(5)
    for objective in objectives:
        pairs = {"none": [], "attention": [(1, 2)], "hidden": [(0, 0), (2, 4)]}[objective.layers]
        whole = {LABEL: np.arange(len(data)) % 3}
        objective.setup(Context(Shape(2, 16, 2), Shape(4, 16, 2), pairs, HEAD, len(data), whole))
    return objectives


def context(folder: Path, **more: Any) -> RunContext:
    """A run whose cache lies in ``folder``; keyword arguments of RunContext, and of its group ``runtime``."""
    known = {key: more.pop(key) for key in ("say", "stop", "show", "dtype") if key in more}
    runtime = SimpleNamespace(**{"teacher_cache": "1GB", "lock_timeout_s": 60.0, **more})
    config: Any = SimpleNamespace(runtime=runtime)
    known = {"say": lambda line: None, "dtype": "fp32", **known}
    return RunContext(config, torch.device("cpu"), threads=1, cache=folder / "cache", **known)


def question(objectives: list[Objective], **more: Any) -> Question:
    data = more.get("data", DATA)
    given = {
        "stage": "toy", "identity": {"weights": "w"}, "load": lambda: network(4, 99), "head": HEAD,
        "reads": reads(objectives), "outputs": any(o.answers for o in objectives),
        "data": data, "rows": np.arange(0 if data is None else len(data)), "quiet": True,
    }  # fmt: skip
    return Question(**(given | more))


def live(objectives: list[Objective]) -> LiveTeacher:
    return LiveTeacher(network(4, 99), HEAD, capture.wanted(objectives, 1), None)


def look_up(objectives: list[Objective], folder: Path, **more: Any) -> CachedTeacher:
    answer = teacher_cache.look_up(question(objectives), None, context(folder, **more))
    assert answer.teacher is not None, answer.why
    return answer.teacher


def asked(folder: Path, objectives: list[Objective], **more: Any) -> list[int]:
    """How many batches the teacher was asked each time that it was shown."""
    shown: list[int] = []
    look_up(objectives, folder, show=lambda stage, student, step, total, n: shown.append(n), **more)
    return shown


def learn(folder: Path, objectives: list[Objective], teacher: Any, **more: Any) -> tuple[dict, list[dict]]:
    """Train a student for an epoch; its weights, and each line of metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[dict] = []
    terms = [Term(f"{number}", 1.0, objective) for number, objective in enumerate(objectives)]
    step = Step(network(2, 1), HEAD, terms)
    student = Student(step, RECIPE, folder, None, "accuracy", lambda s, e, values: lines.append(values))
    loop.train(student, teacher, DATA, loop.LoopSettings(RECIPE, 7, torch.device("cpu"), log_every=1, **more))
    return {key: value.detach().clone() for key, value in student.model.state_dict().items()}, lines


# --- equal to asking -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_student_learns_the_same_from_what_is_stored(name, tmp_path):
    """13 updates with dropout. The teacher's numbers differ by rounding (fp32), which training lets grow."""
    one, told = learn(tmp_path / "a", set_up(OBJECTIVES[name]()), live(set_up(OBJECTIVES[name]())))
    objectives = set_up(OBJECTIVES[name]())
    two, heard = learn(tmp_path / "b", objectives, look_up(objectives, tmp_path))
    assert len(told) == len(heard) == 13
    for line, other in zip(told, heard, strict=True):
        assert other == pytest.approx(line, rel=2e-4, abs=2e-5)
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=2e-3, atol=2e-4)
    assert any(not torch.equal(one[key], network(2, 1).state_dict()[key]) for key in one), "nothing was learned"


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_bit_equal_where_the_batch_is_padded_alike(dtype, tmp_path):
    """All examples in one batch, as they are stored: the same numbers to the last bit (in bf16: rounded to bf16)."""
    data = Subset(DATA, np.arange(40))
    objectives = set_up([HidSeq(), AttKL(), MiniLM()])
    asked = question(objectives, data=data, outputs=True)
    run = context(tmp_path, dtype=dtype)
    stored = teacher_cache.look_up(asked, None, run).teacher
    batch = data.collate(np.argsort(data.costs, kind="stable"))
    target = LiveTeacher(network(4, 99), HEAD, frozenset(asked.reads), run.cast)(batch)
    assert stored is not None and set(stored(batch)) == set(target)
    for name, values in stored(batch).items():
        axis = {"hidden": 1, "logits": 0}.get(name.split(".")[0], 2)
        real = batch.mask.bool() if axis else torch.ones(len(batch), dtype=torch.bool)
        mine, its = (x.transpose(1, axis)[real] if axis else x for x in (values, target[name]))
        kept = torch.float32 if name == "logits" or dtype == "fp32" else torch.bfloat16
        assert values.dtype == kept and torch.equal(mine, its.to(kept)), name
        assert values.shape == target[name].shape
        assert not axis or values.transpose(1, axis)[~real].abs().sum() == 0, "padding is zero"


NO_PADDING = ("kd", "first and whole")
VARIANTS: dict[str, Callable[[], Objective]] = {
    **{name: (lambda make=make: make()[-1]) for name, make in OBJECTIVES.items() if name not in NO_PADDING},
    "hid_cls as released": lambda: HidCLS("bug_a1"),
    "hid_seq as coded": lambda: HidSeq("as_coded"),
    "hid_seq_combine as coded": lambda: HidSeqCombine("as_coded"),
    "att_kl as coded": lambda: AttKL("as_coded"),
    "att_mse as coded": lambda: AttMSE("as_coded"),
    "att_mse as coded by BERT": lambda: AttMSE("as_coded_minus_10000"),
    "val_kl as coded": lambda: ValKL(variant="as_coded"),
    "minilm as coded": lambda: MiniLM("as_coded"),
    "minilm_v2 as coded": lambda: MiniLMv2(variant="as_coded"),
    "lwd as coded": lambda: TedMatch("identity", variant="as_coded"),
}  # fmt: skip


def poisoned(features: dict, batch: Any, reads: str) -> dict:
    """Put nonsense where an objective says that it reads nothing."""
    real = batch.mask.bool().clone()
    if reads == "first":
        real[:, 1:] = False
    out = {}
    for name, values in features.items():
        axis = {"hidden": 1, "logits": 0}.get(name.split(".")[0], 2)
        out[name] = values.clone()
        if axis:
            out[name].transpose(1, axis)[~real] = 1e4
    return out


@pytest.mark.parametrize("name", VARIANTS)
def test_objectives_say_truly_what_they_read(name):
    """Nonsense in the teacher's padding moves neither loss nor gradient, unless an objective says that it reads it."""
    batch, target = DATA.collate(np.arange(9), width=24), live(set_up([HidSeq(), MiniLM(), AttKL(), Patience()]))
    losses = []
    for poison in (False, True):
        objective, model = set_up([VARIANTS[name]()])[0], network(2, 1, 0.0)
        want = capture.wanted([objective], 0)
        target = live([objective])
        capture.prepare(model, want)
        theirs = target(batch)
        if poison:
            theirs = poisoned(theirs, batch, "real" if objective.reads() == "all" else objective.reads())
        loss = objective(capture.forward(model, HEAD, batch, want), theirs, batch)
        loss.backward()
        gradients = [p.grad for p in [*model.parameters(), *objective.parameters()] if p.grad is not None]
        losses.append(torch.cat([loss.detach().reshape(1), *(g.flatten() for g in gradients)]))
    assert torch.equal(*losses) == (objective.reads() != "all"), objective.reads()


# --- a function of the configuration ---------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.bin"))}


def test_what_is_stored_does_not_depend_on_who_asks_for_what_first(tmp_path):
    """Shared by objectives: what one has stored another does not ask for again, and it is what it would have been."""
    hid, att = set_up([HidSeq(), KD()]), set_up([AttKL(), HidSeq()])
    assert len(asked(tmp_path / "a", hid)) == 4 and len(asked(tmp_path / "a", att)) == 4
    assert asked(tmp_path / "a", hid) == asked(tmp_path / "a", set_up([AttKL()])) == []
    asked(tmp_path / "b", att), asked(tmp_path / "b", hid)
    asked(tmp_path / "c", [*hid, *att])
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    assert set(contents(tmp_path / "a")) == {f"{n}.bin" for n in ("hidden.0", "hidden.4", "query.2", "key.2", "logits")}


def test_what_decides_the_numbers_decides_the_place(tmp_path):
    asked = question(set_up([HidSeq()]))
    others = {"identity": {"weights": "v"}, "rows": np.arange(199)}
    places = [teacher_cache.TeacherCache(replace(asked, **{k: v}), context(tmp_path)).place for k, v in others.items()]
    places += [teacher_cache.TeacherCache(asked, context(tmp_path, dtype=dtype)).place for dtype in ("fp32", "bf16")]
    assert len(set(places)) == 4


def test_only_rows_that_somebody_trains_on_are_asked_for(tmp_path):
    rows = np.arange(0, 200, 3)
    run = context(tmp_path, show=lambda stage, student, step, total, n: shown.append(n))
    shown: list[int] = []
    asked = question(set_up([HidSeq()]), rows=rows)
    stored = teacher_cache.look_up(asked, None, run).teacher
    assert stored is not None and sum(shown) == len(rows)
    stored(DATA.collate(rows[:5]))
    with pytest.raises(AssertionError, match="not stored"):
        stored(DATA.collate(np.array([1])))


def test_first_positions_take_a_vector_an_example(tmp_path):
    assert reads(set_up([Patience()])) == {"hidden.2": "first"}
    answer = teacher_cache.look_up(question(set_up([Patience()])), None, context(tmp_path))
    assert answer.size == 200 * 16 * 4
    both = [reads(set_up(objectives)) for objectives in ([HidSeq(), HidCLS()], [HidCLS(), HidSeq()])]
    assert both == [{"hidden.0": "real", "hidden.4": "real"}] * 2


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_table_on_the_device_gives_the_same(dtype, tmp_path):
    cache = teacher_cache.TeacherCache(
        question(set_up([Patience()]), rows=np.arange(0, 200, 2)), context(tmp_path, dtype=dtype)
    )
    opened = cache.open(machine.FeatureBudget("1GB", 10**9, 10**9))
    assert not isinstance(opened, str)
    one = opened[0]["hidden.2"]
    two = ragged.Stored(one.file, one.layout, cache.order, cache.lengths, torch.device("cpu"), resident=True)
    batch = DATA.collate(np.array([8, 0, 198]))
    assert two.table is not None and torch.equal(one(batch), two(batch)) and one(batch).dtype == two(batch).dtype
    assert two(DATA.collate(np.array([7]))).isnan().all(), "an example that was not stored"


def test_micro_batches_are_looked_up_as_they_are_padded(tmp_path):
    objectives = set_up([HidSeq(), AttKL()])
    whole = DATA.collate(np.arange(12), width=24)
    part, stored, target = whole.part(slice(4, 8)), look_up(objectives, tmp_path), live(objectives)
    for name, values in stored(part).items():
        assert values.shape == target(part)[name].shape
        assert torch.equal(values, stored(whole)[name][4:8])


def test_outputs_of_modules_are_stored_by_their_shape(tmp_path):
    """A vector an example, and a matrix of positions by positions."""

    class Attends(torch.nn.Module):
        def forward(self, hidden):
            return hidden @ hidden.transpose(1, 2)

    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.embed, self.matrix, self.pool = torch.nn.Embedding(50, 6), Attends(), torch.nn.Linear(6, 3)

        def forward(self, input_ids, attention_mask, **ignored):
            hidden = self.embed(input_ids)
            self.matrix(hidden)
            return SimpleNamespace(logits=self.pool(hidden[:, 0]))

    reads = {"module:matrix": "real", "module:pool": "real"}
    asked = question([], load=Toy, reads=reads)
    answer = teacher_cache.look_up(asked, None, context(tmp_path))
    assert answer.teacher is not None and answer.size == 4 * int((DATA.costs**2).sum() + 3 * 200)
    batch = DATA.collate(np.array([7, 3, 150]))
    target = LiveTeacher(Toy(), HEAD, frozenset(reads), None)(batch)
    both = batch.mask[:, :, None] * batch.mask[:, None, :]
    stored = answer.teacher(batch)
    torch.testing.assert_close(stored["module:matrix"], target["module:matrix"] * both)
    torch.testing.assert_close(stored["module:pool"], target["module:pool"])


def test_a_feature_without_an_entry_an_example_is_asked_for(tmp_path):
    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.flat = torch.nn.Embedding(50, 6), torch.nn.Flatten(0, 1)

        def forward(self, input_ids, attention_mask, **ignored):
            return SimpleNamespace(logits=self.flat(self.embed(input_ids))[: len(input_ids), :3])

    answer = teacher_cache.look_up(question([], load=Flat, reads={"module:flat": "real"}), None, context(tmp_path))
    assert answer.teacher is None and "module:flat has no entry an example" in answer.why


# --- when it is run on every batch -----------------------------------------------------------------------------------


class Drawn(Subset):
    """Examples that are drawn at collation."""

    def __post_init__(self) -> None:
        self.fixed = False


LIVE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "off": ("runtime.teacher_cache=off", {}, {"teacher_cache": "off"}),
    "dropout": ("teacher.evaluation_mode=false", {"quiet": False}, {}),
    "others": ("not the task's own", {"data": None}, {}),
    "drawn": ("differ from batch to batch", {"data": Drawn(DATA, np.arange(200))}, {}),
    "padding": ("an objective may read hidden.4 at padding", {"reads": {"hidden.4": "all", "hidden.2": "real"}}, {}),
    "unknown": ("revision=<commit>", {"identity": None}, {}),
    "untrained": ("its head is not trained", {"identity": {"weights": "pretrained"}, "outputs": True}, {}),
    "large": (f"need {2 * ONE:.1f} KB, and runtime.teacher_cache=.1MB allows 100.0 KB", {}, {"teacher_cache": ".1MB"}),
}  # fmt: skip


@pytest.mark.parametrize("name", LIVE)
def test_the_teacher_is_run_and_the_reason_said(name, tmp_path):
    why, changes, settings = LIVE[name]
    answer = teacher_cache.look_up(question(set_up([HidSeq()]), **changes), None, context(tmp_path, **settings))
    assert answer.teacher is None and why in answer.why, answer.why
    assert answer.facts["cached"] is False and not contents(tmp_path)


def test_a_bound_refuses_the_same_whatever_is_stored_already(tmp_path):
    objectives = set_up([HidSeq()])
    look_up(objectives, tmp_path)
    answer = teacher_cache.look_up(question(objectives), None, context(tmp_path, teacher_cache="0.1MB"))
    assert answer.teacher is None and "allows 100.0 KB" in answer.why
    more = reads(objectives) | {"hidden.1": "real"}
    answer = teacher_cache.look_up(question([], reads=more), None, context(tmp_path, teacher_cache="0.3MB"))
    assert answer.teacher is None and f"need {3 * ONE:.1f} KB" in answer.why, "what is there counts too"
    assert set(contents(tmp_path)) == {"hidden.0.bin", "hidden.4.bin"}, "nothing is made in vain"


def test_answers_beside_the_weights_need_nothing_more(tmp_path):
    kept = CachedTeacher({"logits": torch.zeros(200, 3)})
    answer = teacher_cache.look_up(question(set_up([KD()]), identity=None), kept, context(tmp_path))
    assert isinstance(answer, Answer) and answer.teacher is not None and not contents(tmp_path)
    assert set(answer.teacher(DATA.collate(np.arange(2)))) == {"logits"}


# --- what may happen to files ----------------------------------------------------------------------------------------


def test_a_stopped_phase_continues_bit_for_bit(tmp_path):
    def objectives() -> list[Objective]:
        return set_up([HidSeq(), AttKL(), KD()])

    calm, _ = learn(tmp_path / "calm", objectives(), look_up(objectives(), tmp_path))
    count = iter(range(100))
    with pytest.raises(Interrupted):
        learn(tmp_path / "cut", objectives(), look_up(objectives(), tmp_path), stop=lambda: next(count) >= 9)
    rough, _ = learn(tmp_path / "cut", objectives(), look_up(objectives(), tmp_path))
    assert all(torch.equal(calm[key], rough[key]) for key in calm)


@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "note", "note gone"])
def test_a_damaged_file_is_named_and_only_what_is_damaged_made_again(harm, tmp_path, caplog):
    objectives = set_up([HidSeq()])
    look_up(objectives, tmp_path)
    before = contents(tmp_path)
    path = next(tmp_path.rglob("hidden.4.bin"))
    again = {"flip": 1, "cut": 2, "gone": 4, "note": 4, "note gone": 4}[harm]
    if harm == "flip":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif harm == "gone":
        path.unlink()
    elif harm == "note":
        path.with_suffix(".json").write_text("{")
    else:
        path.with_suffix(".json").unlink()
    assert len(asked(tmp_path, objectives)) == again
    assert contents(tmp_path) == before
    if harm in ("flip", "cut"):
        assert f"{path} is damaged: {again} of 4 parts" in caplog.text
    assert asked(tmp_path, objectives) == []


class Killed(BaseException):
    """What a killed process does not even get to raise."""


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_a_cut_short_fill_goes_on_where_it_was(way, tmp_path, monkeypatch):
    objectives, seen = set_up([HidSeq(), KD()]), []
    monkeypatch.setattr(disk, "SYNC_S", 0.0)

    def show(*shown: Any) -> None:
        seen.append(1)
        if way == "killed" and len(seen) == 2:
            os._exit(9)

    def begin() -> None:
        look_up(objectives, tmp_path, show=show, stop=lambda: way == "stopped" and len(seen) == 2)

    if way == "killed":
        child = multiprocessing.get_context("fork").Process(target=begin)
        child.start()
        child.join(60)
        assert child.exitcode == 9
    else:
        with pytest.raises(Interrupted, match="the same command continues"):
            begin()
    assert len(asked(tmp_path, objectives)) == 2, "two of four batches were there"
    look_up(objectives, tmp_path / "calm")
    assert contents(tmp_path / "cache") == contents(tmp_path / "calm")


def fill(folder: Path, queue: Any) -> None:
    lines: list[str] = []
    shown: list[int] = []

    def show(stage: str, student: None, step: int, total: int, n: int) -> None:
        shown.append(n)
        torch.ones(1).item()
        time.sleep(0.15)

    stored = look_up(set_up([HidSeq(), AttKL()]), folder, say=lines.append, show=show)
    queue.put(
        (
            len(shown),
            [line for line in lines if "waiting" in line],
            float(stored(DATA.collate(np.arange(8)))["hidden.4"].sum()),
        )
    )


def test_two_processes_that_need_the_same_store_it_once(tmp_path):
    processes = multiprocessing.get_context("fork")
    queue = processes.Queue()
    children = [processes.Process(target=fill, args=(tmp_path, queue)) for _ in range(2)]
    for child in children:
        child.start()
    found = sorted((queue.get(timeout=60) for _ in children), key=lambda each: each[0])
    for child in children:
        child.join(60)
    assert [each[0] for each in found] == [0, 4], "one asked the teacher, the other waited"
    assert "is being stored by" in found[0][1][0] and found[0][2] == found[1][2]


def test_one_who_waits_hears_a_stop_and_gives_up_in_time(tmp_path):
    from filelock import FileLock

    objectives = set_up([HidSeq()])
    look_up(objectives, tmp_path)
    path = next(tmp_path.rglob("hidden.4.bin"))
    path.unlink()
    with FileLock(path.with_suffix(".lock")):
        with pytest.raises(Interrupted, match="hidden.4 for toy is being stored by process"):
            look_up(objectives, tmp_path, stop=lambda: True)
        with pytest.raises(TimeoutError, match="raise runtime.lock_timeout_s"):
            look_up(objectives, tmp_path, lock_timeout_s=0.1)


def test_what_was_used_longest_ago_makes_room_and_what_is_in_use_stays(tmp_path):
    used = look_up(set_up([AttKL()]), tmp_path)  # longest ago, but held
    look_up(set_up([HidSeq()]), tmp_path)
    said: list[str] = []
    others, run = {"value.1": "real", "value.3": "real"}, context(tmp_path, teacher_cache="0.4MB", say=said.append)
    assert teacher_cache.look_up(question([], reads=others), None, run).teacher is not None
    assert any(f"made room: {2 * ONE:.1f} KB" in line for line in said), said
    names = {path.stem for path in tmp_path.rglob("*.bin")}
    assert names == {"query.2", "key.2", "value.1", "value.3"}
    assert set(used(DATA.collate(np.arange(3)))) == {"query.2", "key.2"}


def test_a_full_disk_is_said_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000, total=10**12))
    with pytest.raises(ValueError, match=rf"for toy need {2 * ONE:.1f} KB, and .* has 1.0 KB free"):
        look_up(set_up([HidSeq()]), tmp_path)
    assert not contents(tmp_path)


def test_costs_that_are_no_lengths_are_refused(tmp_path):
    class Priced(Subset):
        @property
        def costs(self) -> np.ndarray:
            return self.whole.costs[self.rows] + 1

    with pytest.raises(ValueError, match="not the lengths of their inputs"):
        teacher_cache.look_up(question(set_up([HidSeq()]), data=Priced(DATA, np.arange(200))), None, context(tmp_path))


# --- the setting -----------------------------------------------------------------------------------------------------


def test_auto_goes_by_the_machines_size_not_by_what_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: 8 * 10**9)
    for free in (0, 10**12):
        usage = SimpleNamespace(free=free, total=10**12)
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda place, usage=usage: usage)
        budget = machine.decide_teacher_cache("auto", "cpu", tmp_path / "not" / "there")
        assert (budget.phase, budget.total, budget.example) == (2 * 10**9, 10**11, None)
    assert budget.refuses(2 * 10**9, 1) is None and "allows 2.0 GB" in str(budget.refuses(2 * 10**9 + 1, 1))
    small = machine.decide_teacher_cache("auto", "cuda:0", tmp_path)
    assert small.refuses(65_536 * 10, 10) is None and "for a GPU" in str(small.refuses(65_536 * 10 + 1, 10))
    assert machine.decide_teacher_cache("1.5GB", "cuda", tmp_path).phase == 1_500_000_000
    assert machine.memory() > 0
