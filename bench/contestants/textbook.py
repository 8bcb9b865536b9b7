"""The loop of papers' code: texts padded to 128, full precision, eager attention, a live teacher, all outputs kept."""

from __future__ import annotations

from itertools import cycle

import torch
from torch.optim.lr_scheduler import LambdaLR

from bench.contestants import losses
from bench.contestants.base import WIDE, Given, adamw


def train(given: Given) -> None:
    """Train without end."""
    teacher, student = given.model("teacher", "eager").eval(), given.model("student", "eager")
    outputs = {"output_attentions": True, "output_hidden_states": True}

    def loss_of(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        read = {name: x for name, x in inputs.items() if name != "labels"}
        with torch.no_grad():
            wanted = teacher(**read, **outputs)
        return losses.total(student(**read, **outputs), wanted, inputs, given.terms)

    student.eval()
    with torch.no_grad():
        first = float(loss_of(given.tensors(given.first, WIDE)))
    student.train()
    optimizer = adamw(student)
    schedule = LambdaLR(optimizer, lambda step: 1.0)
    stream = given.stream()
    batches = [given.tensors(index, WIDE) for index in stream]
    given.clock.ready(first, given.examples.positions(stream, WIDE), shortened=True)
    for inputs in cycle(batches):
        loss = loss_of(inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        loss.item()
        given.clock.tick()
