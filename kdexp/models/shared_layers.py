"""Shuffled parameter sharing (SPS) of Pea-KD (arXiv 2009.14822): more effective layers at equal parameter count.

A layer that is run once more is a :class:`RepeatedLayer`. It owns nothing, so that every parameter is there once: for
the optimiser, in the state dict and in checkpoints. What is exported is :func:`unroll`-ed, so that any program reads
the model that was measured.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from kdexp.models.families import base as families

SHARING = "kdexp_sharing"
"""Key of a saved student's config.json that names its kind of sharing."""

OWN = "kdexp_own_layers"
"""Key of a saved student's config.json: how many of its layers are its own; the others are copies of them."""

KINDS = ("none", "sps1", "sps2")


def sps_plan(layers: int, swap: bool = True) -> list[tuple[int, bool]]:
    """The order in which a student with ``layers`` own layers runs them: (0-based layer, query/key exchanged?).

    Every layer once, then again with the exchange; of 6 layers only the top three run again (9 effective layers).

    Args:
        swap: exchange the query and key projections in the second pass (``sps2``); False is ``sps1``.
    """
    if layers < 1:
        raise ValueError(f"parameter sharing needs at least 1 own layer; got {layers}")
    again = range(3, 6) if layers == 6 else range(layers)
    return [(i, False) for i in range(layers)] + [(i, swap) for i in again]


def effective_layers(layers: int, sharing: str = "none") -> int:
    """Layers that a student with ``layers`` own layers runs; ``sharing`` is ``none``, ``sps1`` or ``sps2``.

    Raises:
        ValueError: for an unknown kind of sharing.
    """
    if sharing not in KINDS:
        raise ValueError(f"sharing={sharing!r} is not known; choose none, sps1 or sps2")
    return layers if sharing == "none" else len(sps_plan(layers, sharing == "sps2"))


class RepeatedLayer(nn.Module):
    """Runs another layer once more, with or without its queries and keys exchanged.

    The exchange is asked of the attention function (:func:`kdexp.models.capture.tapped_attention`) and equals
    exchanging the two projections, weight and bias: each head's scores become the transpose of the plain ones.

    Args:
        layer: the layer that is run again; it stays registered at its own place only.
        swap: exchange queries and keys.
    """

    def __init__(self, layer: nn.Module, swap: bool) -> None:
        super().__init__()
        self.layer = (layer,)  # in a tuple, so that it is not registered a second time
        self.swap = swap
        if hasattr(layer, "attention_type"):
            self.attention_type = layer.attention_type

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer."""
        if self.swap:
            kwargs["exchange"] = True
        return self.layer[0](*args, **kwargs)


def share(model: nn.Module, kind: str) -> None:
    """Turn a student with k own layers into one that runs the card's plan, in place.

    Args:
        model: a classifier of transformers, freshly built.
        kind: ``sps1`` (layers run again) or ``sps2`` (the same with queries and keys exchanged in the second pass).

    Raises:
        ValueError: unknown kind, or an architecture whose attention cannot exchange queries and keys.
    """
    if kind not in KINDS[1:]:
        raise ValueError(f"sharing={kind!r} is not known; choose {' or '.join(KINDS[1:])}")
    if kind == "sps2" and model.config._attn_implementation != families.ATTENTION:  # type: ignore[union-attr]
        raise ValueError(
            "student.sharing=sps2 exchanges queries and keys inside the attention function, and this architecture's "
            "attention does not go through transformers' interface: choose student.sharing=sps1, or another teacher."
        )
    layers = families.of(model).layers(model)
    own = len(layers)
    for number, swap in sps_plan(own, kind == "sps2")[own:]:
        layers.append(RepeatedLayer(layers[number], swap))
    setattr(model.config, SHARING, kind)


def owner(layer: nn.Module) -> tuple[nn.Module, bool]:
    """Return the layer that owns what an effective layer runs, and whether its queries and keys are exchanged."""
    return (layer.layer[0], layer.swap) if isinstance(layer, RepeatedLayer) else (layer, False)


def repetitions(model: nn.Module) -> tuple[str, ...]:
    """Return what the names of weights in repeated layers begin with, in an :func:`unroll`-ed file."""
    family = families.of(model)
    numbers = [i for i, layer in enumerate(family.layers(model)) if isinstance(layer, RepeatedLayer)]
    return tuple(f"{family.prefix(model)}{i}." for i in numbers)


def own_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers that own parameters: all but the repetitions of a student with shared ones."""
    return [layer for layer in families.of(model).layers(model) if not isinstance(layer, RepeatedLayer)]


def unroll(model: nn.Module) -> nn.Module:
    """Return a plain model of transformers that computes the same: one layer of its own for every effective layer.

    It is as deep as it runs and needs no code of kdexp, but its file holds the shared weights several times. Its
    configuration says under :data:`SHARING` and :data:`OWN` what it was.

    Raises:
        ValueError: exchanged layers of an architecture whose projections have unknown names, or repeated ones of an
            architecture whose layers differ in kind.
    """
    family = families.of(model)
    layers, config = family.layers(model), deepcopy(model.config)
    setattr(config, family.num_layers, len(layers))
    setattr(config, OWN, len(own_layers(model)))
    if config._attn_implementation == families.ATTENTION:  # type: ignore[union-attr]
        config._attn_implementation = "sdpa"  # type: ignore[union-attr]
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = [getattr(layer, "attention_type", None) for layer in layers]  # type: ignore[union-attr]
    with torch.random.fork_rng(devices=[]):  # its random weights are replaced, and nobody else's numbers may move
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), strict=False)
    for target, source in zip(family.layers(plain), layers, strict=True):
        if isinstance(source, RepeatedLayer):
            state = source.layer[0].state_dict()
            try:
                target.load_state_dict(_exchanged(state, family) if source.swap else state)
            except RuntimeError as error:
                raise ValueError(f"cannot unroll: layers differ in kind ({' '.join(str(error).split())}).") from error
    return plain.train(model.training)


def _exchanged(state: dict[str, Any], family: families.Family) -> dict[str, Any]:
    """Exchange the query and key projections in a layer's state dict."""
    if family.fused:
        along = family.fused_along
        parts = {name: tensor.chunk(3, along) for name, tensor in state.items() if name.startswith(family.fused)}
        return state | {name: torch.cat([key, query, value], along) for name, (query, key, value) in parts.items()}
    for query, key in family.projections:
        if any(name.startswith(query) for name in state):
            there = {query: key, key: query}
            moved = {n: next((n.replace(a, b, 1) for a, b in there.items() if n.startswith(a)), n) for n in state}
            return {moved[name]: value for name, value in state.items()}
    raise ValueError(f"cannot unroll: no query and key projections among {sorted(state)[:8]}; keep the shared form.")
