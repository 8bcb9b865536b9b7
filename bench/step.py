"""One training step of attention distillation: kdexp's loop against the textbook loop, in the same process.

``python -m bench.step [steps=20] [batch=16] [threads=1]`` needs the embedded teacher (``make env``) and no data.
Textbook: eager attention with ``output_attentions``, every text padded to the maximal length, full precision. kdexp:
fused attention with taps on matched layers, length buckets, bf16 where the machine has it. Both run the teacher.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdexp.config.schema import Config

LENGTH = 64


def main(arguments: list[str] | None = None) -> int:
    """Time both loops and print examples a second and their ratio."""
    given = dict(a.split("=", 1) for a in (sys.argv[1:] if arguments is None else arguments))
    steps, batch, threads = (int(given.get(k, d)) for k, d in (("steps", 20), ("batch", 16), ("threads", 1)))
    import torch

    torch.set_num_threads(threads)
    config, data, teacher, student, task = _material()
    index = _batches(data, batch)[: steps + 2]
    print(f"{steps} steps of {batch}, {threads} thread(s), MiniLM -> 3 layers, att_kl, up to {LENGTH} tokens")
    ours = _time(_kdexp_step(config, data, teacher, student, task), index)
    theirs = _time(_textbook_step(config, data, task), index)
    for name, seconds in (("kdexp", ours), ("textbook", theirs)):
        print(f"{name:<10} {1000 * seconds:8.1f} ms a step   {batch / seconds:7.1f} examples/s")
    print(f"ratio      {theirs / ours:8.2f} x")
    return 0


def _material() -> tuple[Config, Any, Any, Any, Any]:
    import torch
    from hydra import compose, initialize_config_dir

    from kdexp.cli import main
    from kdexp.common.registry import build
    from kdexp.models import build as models
    from kdexp.run import spec
    from kdexp.sweep import plugins
    from kdexp.train.context import RunContext

    main.environment()
    main.resolvers()
    plugins.register()
    with initialize_config_dir(main.CONFIG_PATH, version_base="1.3"):
        config = spec.make(compose("config", overrides=["objective=att_kl", "task=pydocs_kind"])).config
    task = build(config.task)
    cache = Path(tempfile.gettempdir()) / "kdexp-bench"
    data = RunContext(config, torch.device("cpu"), "fp32", 1, cache).data(LENGTH)["train"]
    teacher = models.load_teacher(config.teacher, task.head)
    student = models.build_student(config.teacher, config.student, task.head, None, 1)
    return config, data, teacher, student, task


def _batches(data: Any, size: int) -> list[Any]:
    from kdexp.train.batching import batches

    return batches(data.costs, size, 1, 0)


def _time(step: Callable[[Any], None], index: list[Any]) -> float:
    """Return the median seconds of a step; the first two do not count."""
    times = []
    for rows in index:
        began = time.perf_counter()
        step(rows)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def _kdexp_step(config: Config, data: Any, teacher: Any, student: Any, task: Any) -> Callable[[Any], None]:
    import torch

    from kdexp.common import machine
    from kdexp.models import build as models
    from kdexp.models import capture
    from kdexp.objectives.att_kl import AttKL
    from kdexp.objectives.base import Context
    from kdexp.train import loop, teachers
    from kdexp.train.step import Step, Term
    from kdexp.train.student import Student

    cast = torch.bfloat16 if machine.decide_dtype("auto", "cpu") == "bf16" else None
    objective = AttKL()
    pairs = [(1, 2), (2, 4), (3, 6)]
    shapes = models.shape(student), models.shape(teacher)
    objective.setup(Context(*shapes, pairs, task.head, len(data), data.targets))
    step = Step(student, task.head, [Term("att_kl", 1.0, objective)], cast)
    recipe = config.recipe.model_copy(update={"keep": "last"})
    folder = Path(tempfile.mkdtemp())
    one = Student(step, recipe, folder, None, task.metric, lambda *ignored: None)
    answers = capture.answers_wanted([objective], 1)
    target = teachers.LiveTeacher(teacher, task.head, capture.wanted([objective], 1), cast, answers=answers)
    settings = loop.LoopSettings(recipe, 1, torch.device("cpu"))
    one.begin_epoch(0, 1)

    def run(rows: Any) -> None:
        for micro, whole in loop._micro_batches(data, rows, settings):
            one.backward(micro, target(micro), whole, 1, one.progress.step, 0)
        one.update(1e-4, one.progress.step + 1)

    return run


def _textbook_step(config: Config, data: Any, task: Any) -> Callable[[Any], None]:
    import torch

    from kdexp.models import build as models

    teacher = models.load_teacher(config.teacher, task.head)
    student = models.build_student(config.teacher, config.student, task.head, None, 1)
    for model in (teacher, student):
        model.set_attn_implementation("eager")  # type: ignore[operator]
    teacher.eval()
    student.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, weight_decay=0.01)

    def step(rows: Any) -> None:
        inputs = data.collate(rows, width=LENGTH).inputs
        with torch.no_grad():
            wanted = teacher(**inputs, output_attentions=True, output_hidden_states=True)
        got = student(**inputs, output_attentions=True, output_hidden_states=True)
        loss = sum(
            torch.nn.functional.kl_div(
                got.attentions[s].clamp_min(1e-7).log(), wanted.attentions[t], reduction="batchmean"
            )
            for s, t in ((0, 1), (1, 3), (2, 5))
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    sys.exit(main())
