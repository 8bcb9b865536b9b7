"""TextBrewer's distillers, trained by its own loop; with its own cache of logits where only those are matched.

Written for textbrewer 0.2. Its soft term is a cross entropy, whose distance to the divergence is the teacher's entropy:
that has no gradient, and is taken off before first losses are compared. Divergence of attention maps is a loss of ours,
registered as its documentation says: its own one wants scores, and transformers gives probabilities.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bench.contestants import losses
from bench.contestants.base import Given, adamw

EVER = 1_000_000_000


class Endless:
    """The batches of a cell again and again, as a loader that its loop can ask for its length."""

    def __init__(self, batches: list[dict[str, Tensor]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(self.batches)


def train(given: Given) -> None:
    """Train without end, the teacher being run on every batch."""
    _train(given, cached=False)


def train_cached(given: Given) -> None:
    """Train without end on logits that the distiller has kept."""
    _train(given, cached=True)


def _train(given: Given, cached: bool) -> None:
    import textbrewer
    from textbrewer.presets import MATCH_LOSS_MAP

    logging.getLogger("Distillation").setLevel(logging.ERROR)
    MATCH_LOSS_MAP["bench_att_kl"] = losses.maps
    terms = given.terms
    attention = "eager" if "att_kl" in terms else "sdpa"
    teacher, student = given.model("teacher", attention).eval(), given.model("student", attention)
    outputs = {
        "output_hidden_states": bool({"hid_seq", "patience"} & set(terms)),
        "output_attentions": "att_kl" in terms,
    }

    def adapt(batch: dict[str, Tensor], got: Any) -> dict[str, Any]:
        kept = {"logits": got.logits, "losses": got.loss} if "kd" in terms else {}
        more = {"hidden": got.hidden_states, "attention": got.attentions, "inputs_mask": batch["attention_mask"]}
        return kept | {name: value for name, value in more.items() if value is not None}

    training = textbrewer.TrainingConfig(
        device=given.cell.device, output_dir=str(given.folder / "textbrewer"), ckpt_steps=EVER
    )
    config = textbrewer.DistillationConfig(**_distillation(given), is_caching_logits=cached)
    kind = textbrewer.BasicDistiller if cached else textbrewer.GeneralDistiller
    distiller = kind(training, config, teacher, student, adapt, adapt)
    first = given.tensors(given.first)
    student.eval()
    with torch.no_grad():
        got, wanted = student(**first, **outputs), teacher(**first, **outputs)
        loss, _ = distiller.compute_loss(
            *(textbrewer.distiller_utils.post_adaptor(adapt(first, x)) for x in (got, wanted))
        )
        loss = loss - _entropy(wanted.logits, terms)
    student.train()
    stream = given.stream()
    loader = Endless([given.tensors(index) for index in stream])
    optimizer = adamw(student)
    given.clock.hook(optimizer)
    facts = {"shuffles_batches": True} if cached else {}
    given.clock.ready(float(loss), given.examples.positions(stream), **facts)
    length = {"num_epochs": EVER // len(loader)} if cached else {"num_steps": EVER}
    distiller.train(optimizer, loader, max_grad_norm=1.0, **length, **outputs)


def _distillation(given: Given) -> dict[str, Any]:
    """Say the objective in TextBrewer's words."""
    said: dict[str, Any] = {"kd_loss_weight": 0, "hard_label_weight": 0, "intermediate_matches": []}
    for name, term in given.terms.items():
        weight, pairs = term["weight"], term["pairs"]
        if name == "kd":
            alpha, temperature = term["alpha"], term["temperature"]
            over = 2 if term["reduction"] == "mean" else 1  # its mean is over examples, the other one over classes too
            said |= {"temperature": temperature, "kd_loss_weight": weight * alpha * temperature**2 / over}
            said |= {"hard_label_weight": weight * (1 - alpha)}
        elif name == "patience":
            one = weight / (len(pairs) * given.cell.shape.width)
            matches = [
                {"layer_S": s, "layer_T": t, "feature": "hidden", "loss": "pkd", "weight": one} for s, t in pairs
            ]
            said["intermediate_matches"] += matches
        else:
            feature, loss, shift = (
                ("hidden", "hidden_mse", 0) if name == "hid_seq" else ("attention", "bench_att_kl", 1)
            )
            said["intermediate_matches"] += [
                {"layer_S": s - shift, "layer_T": t - shift, "feature": feature, "loss": loss, "weight": weight}
                for s, t in pairs
            ]
    return said


def _entropy(logits: Tensor, terms: dict[str, dict[str, Any]]) -> Tensor | float:
    if "kd" not in terms:
        return 0.0
    term = terms["kd"]
    p = (logits / term["temperature"]).softmax(-1)
    entropy = -torch.xlogy(p, p).sum(-1).mean() / (2 if term["reduction"] == "mean" else 1)
    return term["weight"] * term["alpha"] * term["temperature"] ** 2 * entropy
