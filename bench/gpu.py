"""Examples a second of distillation on this machine's device, beside the textbook loop and the device's own peak.

``python -m bench.gpu [KEY=VALUE ...]`` needs no data, no network and no teacher: models are random, texts are random
and all as long. Keys: ``layers=12:6 width=768 length=128 batch=128 vocabulary=30522 steps=30 mode=default``,
``objective`` (``kd``, ``hid_seq``, ``att_kl``) and ``json=FILE``. Measured in one process, interleaved, medians:

- ``textbook``: float32, eager attention that returns its weights, a live teacher, every step as PyTorch runs it;
- ``eager``: kdexp's step with ``runtime.compile=false``, the teacher run on every batch (a GPU only);
- ``live``: the same compiled on a GPU, as it is on a CPU;
- ``cached``: as ``live``, with a teacher that is looked up (objectives on answers only).

``variants=eager,live`` measures those alone. ``first (s)`` is a variant's first step, compiling included.

FLOPs are 6 a weight of the student's layers and token, 2 a weight of a live teacher's; MFU is their share of what the
maker states for the device, and beside it stands the share of what a matrix product of these shapes reaches here.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEFAULTS = {
    "layers": "12:6", "width": "768", "length": "128", "batch": "128", "vocabulary": "30522", "steps": "30",
    "mode": "default", "objective": "kd", "variants": "", "json": "",
}  # fmt: skip
OBJECTIVES = ("kd", "hid_seq", "att_kl")
VARIANTS = ("textbook", "eager", "live", "cached")
WARM = 5
"""Steps before the clock counts: compilation, recorded graphs, the allocator."""


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table."""
    words = sys.argv[1:] if arguments is None else arguments
    given = dict(word.partition("=")[::2] for word in words)
    unknown = [key for key in given if key not in DEFAULTS]
    asked = {**DEFAULTS, **given}
    unknown += [f"objective={asked['objective']}"] if asked["objective"] not in OBJECTIVES else []
    unknown += [f"variants={name}" for name in asked["variants"].split(",") if name and name not in VARIANTS]
    if unknown:
        known = f"keys: {', '.join(DEFAULTS)}; objectives: {', '.join(OBJECTIVES)}; variants: {', '.join(VARIANTS)}"
        print(f"{', '.join(unknown)} is unknown; {known}.", file=sys.stderr)
        return 2
    report = measure(asked)
    print(f"{report['device']}, {report['dtype']}, torch {report['torch']}")
    sizes = f"layers {asked['layers']}, width {asked['width']}, length {asked['length']}, batch {asked['batch']}"
    print(f"{asked['objective']}, {sizes}, mode {asked['mode']}")
    print(f"{'':<10}{'examples/s':>12}{'TFLOP/s':>10}{'MFU':>8}{'of GEMM':>9}{'first (s)':>11}")
    for name, row in report["rows"].items():
        mfu = "-" if row["mfu"] is None else f"{row['mfu']:.1%}"
        speed = f"{row['examples_per_s']:>12.1f}{row['tflops_per_s']:>10.2f}{mfu:>8}{row['of_gemm']:>9.1%}"
        print(f"{name:<10}{speed}{row['first_s']:>11.1f}")
    print(f"{'GEMM':<10}{'':>12}{report['gemm_tflops_per_s']:>10.2f}  (batch * length, width) x (width, 4 * width)")
    if asked["json"]:
        Path(asked["json"]).write_text(json.dumps(report, indent=1) + "\n")
    return 0


def measure(asked: dict[str, str]) -> dict[str, Any]:
    """Return examples a second, TFLOP/s and their shares, by variant."""
    import torch

    from kdexp.common import machine

    device = torch.device(machine.decide_device("auto"))
    dtype = machine.decide_dtype("auto", device.type)
    steps, batch, length, width = (int(asked[key]) for key in ("steps", "batch", "length", "width"))
    big, small = (12 * int(n) * width**2 for n in asked["layers"].split(":"))  # weights of the layers
    variants = _variants(asked, device, torch.bfloat16 if dtype == "bf16" else None)
    times: dict[str, list[float]] = {name: [] for name in variants}
    first: dict[str, float] = {}
    for number in range(WARM + steps):
        for name, step in variants.items():
            began = time.perf_counter()
            step(number)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number == 0:
                first[name] = time.perf_counter() - began
                print(f"{name}: first step {first[name]:.1f} s", file=sys.stderr, flush=True)
            if number >= WARM:
                times[name].append(time.perf_counter() - began)
    gemm, peak = _gemm(device, dtype, batch * length, width), machine.peak_flops(str(device), dtype)
    rows = {}
    for name, seconds in times.items():
        rate = batch / statistics.median(seconds)
        speed = rate * length * (6 * small + (0 if name == "cached" else 2 * big))
        rows[name] = {
            "examples_per_s": rate, "tflops_per_s": speed / 1e12, "of_gemm": speed / gemm,
            "mfu": None if peak is None else speed / peak, "first_s": first[name],
        }  # fmt: skip
    return {
        "device": machine.hardware(str(device)), "dtype": dtype, "torch": torch.__version__, "asked": asked,
        "gemm_tflops_per_s": gemm / 1e12, "rows": rows,
    }  # fmt: skip


def _gemm(device: Any, dtype: str, rows: int, width: int) -> float:
    """Return the operations a second of the feed-forward network's first product, the best of some."""
    import torch

    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    a = torch.randn(rows, width, device=device, dtype=kind)
    b = torch.randn(width, 4 * width, device=device, dtype=kind)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(3):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - began) / 3)
    return 2 * rows * width * 4 * width / best


def _variants(asked: dict[str, str], device: Any, cast: Any) -> dict[str, Callable[[int], None]]:
    import numpy as np
    import torch

    from kdexp.config.schema import Recipe
    from kdexp.heads.classification import Classification
    from kdexp.models import capture
    from kdexp.models.families.base import ATTENTION, Shape
    from kdexp.objectives.att_kl import AttKL
    from kdexp.objectives.base import Context
    from kdexp.objectives.hid_seq import HidSeq
    from kdexp.objectives.kd import KD
    from kdexp.tasks.text.encoding import Encoded
    from kdexp.train import compiling, loop
    from kdexp.train.step import Step, Term, run_step
    from kdexp.train.student import Student
    from kdexp.train.teachers import CachedTeacher, LiveTeacher

    deep, flat = (int(n) for n in asked["layers"].split(":"))
    batch, length, width = (int(asked[key]) for key in ("batch", "length", "width"))
    heads, vocabulary, examples = max(1, width // 64), int(asked["vocabulary"]), 8 * batch
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, vocabulary, examples * length).astype(np.int32)
    offsets = np.arange(0, len(tokens) + 1, length, dtype=np.int64)
    data = Encoded(tokens, np.zeros_like(tokens, dtype=np.int8), offsets, rng.integers(0, 2, examples), 0, 0)
    head, mode = Classification(["a", "b"]), asked["mode"]
    recipe = Recipe(batch_size=batch, keep="last")
    settings = loop.LoopSettings(recipe, 1, device)
    capture.install()

    def network(layers: int, attention: str = ATTENTION) -> Any:
        from transformers import AutoModelForSequenceClassification, BertConfig

        torch.manual_seed(layers)
        config = BertConfig(
            num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width,
            vocab_size=vocabulary, max_position_embeddings=max(512, length), num_labels=2,
        )  # fmt: skip
        return AutoModelForSequenceClassification.from_config(config, attn_implementation=attention).to(device)

    def objective() -> Any:
        made = {"kd": KD, "hid_seq": HidSeq, "att_kl": AttKL}[asked["objective"]]()
        pairs = [] if made.layers == "none" else [(n, n * deep // flat) for n in range(1, flat + 1)]
        shapes = Shape(flat, width, heads), Shape(deep, width, heads)
        made.setup(Context(*shapes, pairs, head, examples, {"label": np.zeros(examples)}))
        return made

    def rows(number: int) -> Any:
        return (np.arange(batch) + number * batch) % examples

    def ours(live: bool, compiled: bool) -> Callable[[int], None]:
        made = objective()
        step = Step(network(flat), head, [Term("it", 1.0, made)], cast)
        capture.prepare(step.model, step.want)
        run = compiling.compiled_step(str(device), mode) if compiled else run_step
        one = Student(step, recipe, Path(tempfile.mkdtemp()), None, "accuracy", lambda *ignored: None, run)
        one.begin_epoch(0, 1)
        asks, answers = capture.wanted([made], 1), capture.answers_wanted([made], 1)
        forward = compiling.compiled_teacher(str(device), mode) if compiled else capture.forward
        said: Any = CachedTeacher({"logits": torch.zeros(examples, 2, device=device)})
        if live:
            said = LiveTeacher(network(deep), head, asks, cast, answers=answers, run=forward)
        new_pass = compiling.new_pass(mode)

        def update(number: int) -> None:
            for micro, (part, whole) in enumerate(loop._micro_batches(data, rows(number), settings)):
                new_pass()
                one.backward(part, said(part), whole, 1, number, micro)
            one.update(1e-5, number + 1)

        return update

    gpu = device.type == "cuda"
    every = set(VARIANTS) if gpu else set(VARIANTS) - {"eager"}  # on a CPU live is eager
    wanted = {name for name in asked["variants"].split(",") if name} or every
    wanted -= {"cached"} if asked["objective"] != "kd" else set()
    made = {
        "textbook": lambda: _textbook(network(deep, "eager"), network(flat, "eager"), data, rows, device, asked),
        "eager": lambda: ours(True, False),
        "live": lambda: ours(True, gpu),
        "cached": lambda: ours(False, gpu),
    }
    return {name: make() for name, make in made.items() if name in wanted}


def _textbook(teacher: Any, student: Any, data: Any, rows: Any, device: Any, asked: dict[str, str]) -> Any:
    import torch
    from torch.nn import functional as F

    teacher.eval()
    student.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, weight_decay=0.01)
    ratio = len(teacher.bert.encoder.layer) // len(student.bert.encoder.layer)

    def loss(said: Any, got: Any, labels: Any) -> Any:
        if asked["objective"] == "kd":
            soft = F.kl_div(got.logits.log_softmax(-1), said.logits.softmax(-1), reduction="batchmean")
            return (soft + F.cross_entropy(got.logits, labels)) / 2
        if asked["objective"] == "hid_seq":
            pairs = zip(got.hidden_states[1:], said.hidden_states[ratio::ratio], strict=True)
            return sum(F.mse_loss(a, b) for a, b in pairs)
        pairs = zip(got.attentions, said.attentions[ratio - 1 :: ratio], strict=True)
        return sum(F.kl_div(a.clamp_min(1e-7).log(), b, reduction="batchmean") for a, b in pairs)

    def step(number: int) -> None:
        batch = data.collate(rows(number)).to(device)
        with torch.no_grad():
            said = teacher(**batch.inputs, output_attentions=True, output_hidden_states=True)
        got = student(**batch.inputs, output_attentions=True, output_hidden_states=True)
        optimizer.zero_grad()
        loss(said, got, batch.labels["label"]).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    sys.exit(main())
