"""What a GPU will do, as far as a CPU can tell: no wait in a step, one graph, weights cast once, pinned copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kdexp.common import machine
from kdexp.models import capture, precision
from kdexp.models.families.base import Shape
from kdexp.objectives.att_kl import AttKL
from kdexp.objectives.base import Context
from kdexp.objectives.finetune import Finetune
from kdexp.objectives.hid_cls import HidCLS
from kdexp.objectives.hid_seq import HidSeq
from kdexp.objectives.kd import KD
from kdexp.objectives.minilm_v2 import MiniLMv2
from kdexp.objectives.patience import Patience
from kdexp.train import compiling, evaluate, loop, optim
from kdexp.train.compiling import compiled_step
from kdexp.train.context import RunContext
from kdexp.train.step import Step, Term, run_step
from kdexp.train.student import Student
from kdexp.train.teachers import CachedTeacher, LiveTeacher
from tests.test_loop import RECIPE
from tests.test_reach import FAMILIES, batch, model_of
from tests.test_runs import toy
from tests.toys import HEAD, examples, network

OBJECTIVES = [KD, Finetune, HidSeq, HidCLS, AttKL, MiniLMv2, Patience]
WAITS = {torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal, torch.ops.aten.is_nonzero}
"""What a GPU's results must be waited for: .item(), bool(), boolean indices."""
BF16 = torch.bfloat16


class Calls(TorchDispatchMode):
    """Notes every operator that is called, and where the tensors lie that are cast."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Any] = []
        self.cast: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.made.append(function.overloadpacket)
        if function.overloadpacket is torch.ops.aten._to_copy:
            self.cast.append(args[0].data_ptr())
        return function(*args, **(kwargs or {}))

    def waits(self) -> list[str]:
        return [str(function) for function in self.made if function in WAITS]

    def casts(self, model: torch.nn.Module) -> int:
        weights = {p.data_ptr() for p in model.parameters()}
        return sum(place in weights for place in self.cast)


@pytest.fixture
def no_looking(monkeypatch):
    """Decide as on a GPU what may be looked at."""
    monkeypatch.setattr(capture, "may_look", lambda device: False)


def student(objective: type, folder: Any) -> Student:
    made = objective()
    pairs = [] if objective.layers == "none" else [(1, 2)]
    made.setup(Context(Shape(2, 16, 2), Shape(4, 16, 2), pairs, HEAD, 30, {"label": np.zeros(30)}))
    step = Step(network(2, 1), HEAD, [Term("it", 1.0, made)])
    capture.prepare(step.model, step.want)
    one = Student(step, RECIPE, folder, None, "accuracy", lambda *ignored: None)
    one.begin_epoch(0, 2)
    return one


def teacher(one: Student) -> LiveTeacher:
    listening = one.step.listeners()
    want, answers = capture.wanted(listening, 1), capture.answers_wanted(listening, 1)
    return LiveTeacher(network(4, 99), HEAD, want, None, answers=answers)


def update(one: Student, said: Any, rows: np.ndarray) -> None:
    settings = loop.LoopSettings(RECIPE, 7, torch.device("cpu"))
    for micro, (part, whole) in enumerate(loop._micro_batches(examples(), rows, settings)):
        one.backward(part, said(part), whole, 7, 0, micro)
    one.update(1e-3, 1)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.__name__)
def test_a_step_waits_for_nothing(objective, tmp_path, no_looking):
    one = student(objective, tmp_path)
    said = teacher(one)
    update(one, said, np.arange(8))  # buffers and moments are made
    with Calls() as calls:
        update(one, said, np.arange(8, 16))
    assert calls.made and calls.waits() == []


def test_a_step_on_a_cached_teacher_waits_for_nothing(tmp_path, no_looking):
    said = CachedTeacher({"logits": torch.zeros(30, 3)})
    with Calls() as calls:
        update(student(KD, tmp_path), said, np.arange(8))
    assert calls.waits() == []


def test_a_wait_would_be_seen(tmp_path):
    with Calls() as calls:  # on a CPU transformers looks whether a batch has padding
        update(student(KD, tmp_path), lambda part: {"logits": torch.zeros(len(part), 3)}, np.arange(8))
    assert calls.waits()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.__name__)
def test_step_and_teacher_are_one_graph_each(objective, tmp_path, no_looking):
    one = student(objective, tmp_path)
    said, rows = teacher(one), examples().collate(np.arange(8))
    target, shares = said(rows), {"it": torch.ones(())}
    torch._dynamo.reset()
    found = torch._dynamo.explain(run_step)(one.step, rows, target, shares)
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons
    with torch.no_grad():
        found = torch._dynamo.explain(capture.forward)(said.model, HEAD, rows, said.want, said.answers)
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("want", [frozenset(), frozenset({"hidden.2", "query.3"})], ids=["answers", "features"])
def test_weights_that_are_cast_once_change_no_bit(family, want):
    model, some = model_of(family), batch()
    capture.prepare(model, want)
    model.requires_grad_(False)

    def features() -> dict[str, torch.Tensor]:
        with torch.no_grad(), torch.autocast("cpu", BF16):
            return capture.forward(model, HEAD, some, want)

    with Calls() as before:
        plain = features()
    cast = before.casts(model)  # counted here: lowered weights lie elsewhere
    precision.lower(model, BF16)
    with Calls() as after:
        lowered = features()
    assert cast > 0 and after.casts(model) == 0
    assert all(torch.equal(plain[name], lowered[name]) for name in plain) and plain.keys() == lowered.keys()


def test_tied_embeddings_stay_as_they_are():
    from transformers import AutoModelForMaskedLM, BertConfig

    config = BertConfig(num_hidden_layers=1, hidden_size=16, num_attention_heads=2, intermediate_size=32, vocab_size=50)
    model = AutoModelForMaskedLM.from_config(config)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    precision.lower(model, BF16)
    assert model.bert.embeddings.word_embeddings.weight.dtype is torch.float32
    assert model.bert.encoder.layer[0].output.dense.weight.dtype is BF16
    assert model.bert.embeddings.LayerNorm.weight.dtype is torch.float32


def test_a_live_teacher_in_bf16_has_cast_weights_and_says_the_same():
    some, plain = examples().collate(np.arange(8)), network(4, 99).eval()
    with torch.no_grad(), torch.autocast("cpu", BF16):
        expected = capture.forward(plain, HEAD, some, frozenset({"query.2"}))
    said = LiveTeacher(network(4, 99), HEAD, frozenset({"query.2"}), BF16)
    with Calls() as calls:
        features = said(some)
    assert calls.casts(said.model) == 0
    assert all(torch.equal(expected[name], features[name]) for name in expected)


def test_an_evaluation_casts_each_weight_once(tmp_path):
    model, data = network(2, 1), examples(150)  # three batches
    context = RunContext(None, torch.device("cpu"), "bf16", 1, tmp_path)  # type: ignore[arg-type]
    with Calls() as calls:
        evaluate.answers(model, data, HEAD, context)
    matrices = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert 0 < calls.casts(model) <= 2 * len(matrices)  # a weight and a bias each


def test_adamw_is_fused():
    made = optim.optimizer([network(1, 1)], RECIPE)
    assert made.defaults["fused"] is True


def test_a_gpu_fetches_batches_from_pinned_memory(monkeypatch):
    done: list[str] = []

    def pinned(self: torch.Tensor) -> torch.Tensor:
        done.append("pin")
        return self

    def moved(self: torch.Tensor, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
        done.append(f"to {device} {non_blocking}")
        return self

    some = examples().collate(np.arange(4))
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "to", moved)
    some.to(torch.device("cuda"))
    assert done and done == ["pin", "to cuda True"] * (len(done) // 2)
    done.clear()
    some.to(torch.device("cpu"))
    assert set(done) == {"to cpu False"}


def test_modes_of_compilation_reach_the_compiler(monkeypatch):
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options) or function)
    monkeypatch.setattr(compiling, "_COMPILED", {})
    assert compiled_step("cuda", "reduce-overhead") is run_step
    assert compiling.compiled_teacher("cuda") is capture.forward
    assert [options["mode"] for options in asked] == ["reduce-overhead", "default"]
    assert all(options["fullgraph"] for options in asked)
    assert compiling.new_pass("reduce-overhead") is torch.compiler.cudagraph_mark_step_begin
    assert compiling.new_pass("default")() is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runtime.compile=false"], "has no effect with runtime.compile=false"),
        (["runtime.device=cpu"], "records CUDA graphs and runtime.device=cpu"),
        (["runtime.device=cuda", "runtime.devices=2"], "their exchange is in no graph"),
        (["runtime.device=cuda", "runtime.cohort=2"], "has no effect with runtime.compile_mode=reduce-overhead"),
        (["runtime.device=cuda", "recipe.accumulation=2"], "so they cannot be summed"),
        (["runtime.compile_mode=fastest"], "choose one of: default, reduce-overhead, max-autotune-no-cudagraphs"),
    ],
)
def test_modes_that_cannot_be_had_are_refused(compose, tiny_bert_dir, tiny_csv_task, words, said):
    from kdexp.run import spec

    asked = [*toy(tiny_bert_dir, tiny_csv_task), "runtime.compile_mode=reduce-overhead", *words]
    made, problems = spec.prepare(compose(*asked))
    assert made is None and any(said in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("fpu sse2 avx2 fma", "fp32"),
        ("avx2 avx512f avx512bw avx512_vnni", "fp32"),
        ("avx2 avx512f avx512_bf16", "bf16"),
        ("avx512f amx_bf16 amx_tile amx_int8", "bf16"),
        ("amx_tile amx_int8", "fp32"),
        ("", "fp32"),
    ],
)
def test_auto_takes_bf16_where_the_cpu_computes_in_it(monkeypatch, flags, dtype):
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags.split()))
    assert machine.decide_dtype("auto", "cpu") == dtype
    assert machine.decide_dtype("fp32", "cpu") == "fp32" and machine.decide_dtype("bf16", "cpu") == "bf16"
