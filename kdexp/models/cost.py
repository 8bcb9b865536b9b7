"""What a model costs to use: floating-point operations and latency, measured with warm-up."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn

WARMUP, REPEATS = 3, 15


def measure(model: nn.Module, device: torch.device, length: int, vocabulary: int) -> dict[str, float]:
    """Return operations an example and latencies of a classifier, in evaluation mode and float32.

    Args:
        model: any classifier of transformers.
        device: where to time it.
        length: tokens an example, none of them padding.
        vocabulary: ids are drawn below it.

    Returns:
        ``gflop_per_example`` (a multiply-add counts as 2) and for batches of 1 and 32
        ``<device>_batch<n>_median_ms`` and ``..._p95_ms`` (whole batch, milliseconds).
    """
    from torch.utils.flop_counter import FlopCounterMode

    model = model.to(device).eval()
    found: dict[str, float] = {}
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            model(**_batch(1, length, vocabulary, device))
        found["gflop_per_example"] = round(counter.get_total_flops() / 1e9, 4)
        for size in (1, 32):
            times = _times(model, _batch(size, length, vocabulary, device), device)
            found[f"{device.type}_batch{size}_median_ms"] = round(float(np.median(times)), 3)
            found[f"{device.type}_batch{size}_p95_ms"] = round(float(np.percentile(times, 95)), 3)
    return found


def _batch(size: int, length: int, vocabulary: int, device: torch.device) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (size, length), generator=generator)
    return {"input_ids": ids.to(device), "attention_mask": torch.ones_like(ids).to(device)}


def _times(model: nn.Module, batch: dict[str, torch.Tensor], device: torch.device) -> list[float]:
    """Time single calls, in milliseconds, after a few that do not count."""
    times = []
    for number in range(WARMUP + REPEATS):
        began = time.perf_counter()
        model(**batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= WARMUP:
            times.append(1000 * (time.perf_counter() - began))
    return times


def of_run(run: Any, task: Any, weights: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Measure a run's exported student and its teacher, as ``{"student": ..., "teacher": ...}``.

    Args:
        run: the machinery (:class:`kdexp.train.phase.Run`).
        task: the run's task.
        weights: role -> folder of saved weights; roles without one are left out.
    """
    from kdexp.models import build as models

    config, found = run.config, {}
    length, vocabulary = config["recipe"]["max_length"], config["teacher"]["vocab_size"]
    if weights.get("student"):
        student = models.build_student(config["teacher"], config["student"], task, None, 0)
        found["student"] = measure(models.load_weights(student, weights["student"]), run.device, length, vocabulary)
    if weights.get("teacher"):
        teacher = models.load_teacher(config["teacher"], task, weights["teacher"])
        found["teacher"] = measure(teacher, run.device, length, vocabulary)
    return found
