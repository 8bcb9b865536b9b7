"""Layers that are run more than once: the modules of shuffled parameter sharing (plans: :mod:`kdexp.models.sharing`).

A repeated layer is an :class:`Again`. It owns nothing, so that every parameter is there once: for the optimiser, in
the state dict and on disk.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from kdexp.models.sharing import KINDS, sps_plan

SHARING = "kdexp_sharing"
"""Key of a saved student's config.json that names its kind of sharing."""

PROJECTIONS = (("attention.self.query.", "attention.self.key."), ("attention.q_lin.", "attention.k_lin."))
"""Names of the query and key projections inside a layer, by family."""


class Again(nn.Module):
    """Runs another layer once more, with or without its queries and keys exchanged.

    The exchange is asked of the attention function (:func:`kdexp.models.capture.tapped_attention`) and equals exchanging
    the two projections, weight and bias: each head's scores become the transpose of the plain ones.

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
    from kdexp.models import build as models
    from kdexp.models import capture

    if kind not in KINDS[1:]:
        raise ValueError(f"sharing={kind!r} is not known; choose {' or '.join(KINDS[1:])}")
    if kind == "sps2" and model.config._attn_implementation != capture.ATTENTION:  # type: ignore[union-attr]
        raise ValueError(
            "student.sharing=sps2 exchanges queries and keys inside the attention function, and this architecture's "
            "attention does not go through transformers' interface: choose student.sharing=sps1, or another teacher."
        )
    layers = models.layers(model)
    own = len(layers)
    for number, swap in sps_plan(own, kind == "sps2")[own:]:
        layers.append(Again(layers[number], swap))
    setattr(model.config, SHARING, kind)


def restore(folder: Path) -> nn.Module:
    """Load a saved student with shared layers; transformers alone would load its own layers without the repetitions."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from kdexp.models import build as models
    from kdexp.models import capture

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=capture.ATTENTION)
    kind = getattr(config, SHARING, "none")
    if kind != "none":
        share(model, kind)
    return models.load_weights(model, folder).eval()


def unroll(model: nn.Module) -> nn.Module:
    """Return a plain model of transformers that computes the same: one layer of its own for every effective layer.

    It is as deep as it runs and needs no code of kdexp, but its file holds the shared weights several times.

    Raises:
        ValueError: exchanged layers of an architecture whose projections have unknown names.
    """
    from transformers import AutoModelForSequenceClassification

    from kdexp.models import build as models

    layers, config = models.layers(model), deepcopy(model.config)
    config.num_hidden_layers, config._attn_implementation = len(layers), "sdpa"  # type: ignore[union-attr]
    if hasattr(config, SHARING):
        delattr(config, SHARING)
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = [getattr(layer, "attention_type", None) for layer in layers]  # type: ignore[union-attr]
    plain = AutoModelForSequenceClassification.from_config(config)
    plain.load_state_dict(model.state_dict(), strict=False)
    for target, source in zip(models.layers(plain), layers, strict=True):
        if isinstance(source, Again):
            state = source.layer[0].state_dict()
            target.load_state_dict(_exchanged(state) if source.swap else state)
    return plain.train(model.training)


def _exchanged(state: dict[str, Any]) -> dict[str, Any]:
    """Exchange the query and key projections in a layer's state dict."""
    for query, key in PROJECTIONS:
        if any(name.startswith(query) for name in state):
            there = {query: key, key: query}
            moved = {n: next((n.replace(a, b, 1) for a, b in there.items() if n.startswith(a)), n) for n in state}
            return {moved[name]: value for name, value in state.items()}
    raise ValueError(f"cannot unroll: no query and key projections among {sorted(state)[:8]}; keep the shared form.")
