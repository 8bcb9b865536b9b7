"""torchdistill's box, trained as its examples for GLUE do: forward process, post-forward process, batch by batch.

Written for torchdistill 1.1. Its own losses know no attention mask: those on hidden states and attention maps are ours,
registered as its documentation says. kd is its own KDLoss.
"""

from __future__ import annotations

import logging
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

from bench.contestants import losses
from bench.contestants.base import Given


class Matched(nn.Module):
    """A term of ours on what hooks of both models recorded; the mask comes with the labels."""

    def __init__(self, name: str, term: dict[str, Any]) -> None:
        super().__init__()
        self.name, self.term = name, term

    def forward(self, student: dict[str, Any], teacher: dict[str, Any], targets: Any, *ignored: Any) -> Tensor:
        """Return the unweighted loss."""
        views = [_Outputs(recorded, self.term["pairs"], side) for side, recorded in enumerate((student, teacher))]
        return losses.TERMS[self.name](*views, targets.inputs, self.term)


class _Outputs:
    """What hooks recorded, under the names of transformers' outputs."""

    def __init__(self, recorded: dict[str, Any], pairs: list[list[int]], side: int) -> None:
        layers = [pair[side] for pair in pairs]
        self.hidden_states = {layer: _tensor(recorded.get(hidden_path(layer))) for layer in layers}
        self.attentions = {layer - 1: _maps(recorded.get(maps_path(layer))) for layer in layers}


def _tensor(got: Any) -> Any:
    value = got and got["output"]
    return value[0] if isinstance(value, tuple) else value


def _maps(got: Any) -> Any:
    return got and got["output"][1]


def hidden_path(layer: int) -> str:
    """Return the module whose output is a hidden state (0 = embedding output)."""
    return f"bert.encoder.layer.{layer - 1}" if layer else "bert.embeddings"


def maps_path(layer: int) -> str:
    """Return the module that puts out attention maps."""
    return f"bert.encoder.layer.{layer - 1}.attention.self"


class Labels(Tensor):
    """Labels that carry their batch along: torchdistill hands on nothing else."""

    inputs: dict[str, Tensor]


def train(given: Given) -> None:
    """Train without end."""
    from torchdistill.core import distillation

    logging.getLogger("torchdistill").setLevel(logging.ERROR)
    terms = given.terms
    attention = "eager" if "att_kl" in terms else "sdpa"
    teacher, student = given.model("teacher", attention).eval(), given.model("student", attention)
    box = distillation.DistillationBox(
        teacher, student, {}, _config(terms), torch.device(given.cell.device), None, False, 1.0
    )
    box.student_model.eval()
    stream = given.stream()
    batches = [_batch(given, index) for index in stream]
    with torch.no_grad():
        first = float(box.forward_process(*_batch(given, given.first)))
    box.pre_epoch_process(epoch=0)
    given.clock.hook(box.optimizer)
    given.clock.ready(first, given.examples.positions(stream))
    for inputs, labels in cycle(batches):
        box.post_forward_process(box.forward_process(inputs, labels, None))


def _batch(given: Given, index: Any) -> tuple[dict[str, Tensor], Tensor]:
    inputs = given.tensors(index)
    labels = inputs.pop("labels")
    carried = labels.as_subclass(Labels)
    carried.inputs = {**inputs, "labels": labels}
    return inputs, carried


def _config(terms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Say the objective in torchdistill's words."""
    subs: dict[str, Any] = {}
    paths: tuple[set[str], set[str]] = (set(), set())
    for name, term in terms.items():
        if name == "kd":
            logits = {
                f"{who}_module_{key}": value
                for who in ("student", "teacher")
                for key, value in (("path", "classifier"), ("io", "output"))
            }
            settings = {**logits, "temperature": term["temperature"], "alpha": 1 - term["alpha"], "beta": term["alpha"]}
            criterion: Any = {"key": "KDLoss", "kwargs": {**settings, "reduction": term["reduction"]}}
        else:
            criterion = Matched(name, term)
        subs[name] = {"criterion": criterion, "weight": term["weight"]}
        for side in (0, 1):
            path = {"kd": lambda layer: "classifier", "att_kl": maps_path}.get(name, hidden_path)
            paths[side].update({path(pair[side]) for pair in term["pairs"]} if name != "kd" else {"classifier"})
    models = [
        {"forward_proc": "forward_batch_only_as_kwargs", "forward_hook": {"output": sorted(some)}} for some in paths
    ]
    return {
        "num_epochs": 1,
        "student": models[0],
        "teacher": {**models[1], "requires_grad": False},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": 1e-4, "eps": 1e-6, "weight_decay": 0.01}, "max_grad_norm": 1.0},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": subs}},
    }
