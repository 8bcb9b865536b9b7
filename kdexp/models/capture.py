"""Capture of features: a tap in the attention function, and taps on named modules.

The attention tap is a function registered with transformers under the name ``kdexp``. It calls PyTorch's fused
attention and, for the layers asked for, puts queries, keys and values into a dictionary that travels through the
model's keyword arguments: no hook, no slow attention. Every other module is tapped by its path, by a forward hook that
stays quiet unless a forward pass asks. Nothing is kept that nobody reads, and the whole pass compiles into one graph.

Names of features are those of :mod:`kdexp.objectives.base`. A kind is what stands before the layer's number:
``hidden``, ``query``, ``key``, ``value``, or ``module:PATH``, in which ``{block}`` stands for the path of the layer. A
path without ``{block}`` names one module whatever the layers.

Legend: B examples, L padded length, D width, H heads, d = D/H, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.heads.base import Head
from kdexp.heads.batch import Batch, Features
from kdexp.models import places, reach
from kdexp.models.families import base as families
from kdexp.models.families.base import ATTENTION
from kdexp.models.reach import BLOCK, MODULE, PARTS


class Listener(Protocol):
    """What needs features: an objective."""

    needs: ClassVar[tuple[str, ...]]
    answers: ClassVar[bool]
    uses_teacher: ClassVar[bool]
    pairs: list[tuple[int, int]]


def tapped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    taps: dict[str, Any] | None = None,
    exchange: bool = False,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention that records what ``taps`` wants.

    Layers are counted by calls, from 1, so a layer that is used twice counts twice.

    Args:
        module: the attention module; says whether tokens see those before them only.
        query, key, value: (B, H, L, d).
        attention_mask: broadcastable to (B, H, L, L), or None.
        scaling: factor on the scores; None = 1/sqrt(d).
        dropout: probability.
        taps: ``{"want": names, "layer": calls so far, "got": features}`` or None.
        exchange: take queries for keys and keys for queries (:mod:`kdexp.models.shared_layers`).

    Returns:
        The context (B, L, H, d) and None (no attention weights are ever made).
    """
    query, key = (key, query) if exchange else (query, key)
    if taps is not None:
        taps["layer"] += 1
        for name, tensor in zip(PARTS, (query, key, value), strict=True):
            label = f"{name}.{taps['layer']}"
            if label in taps["want"]:
                taps["got"][label] = tensor
    causal = attention_mask is None and getattr(module, "is_causal", False)  # then nobody has made a mask of it
    context = F.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling, is_causal=causal
    )
    return context.transpose(1, 2).contiguous(), None


@cache
def install() -> None:
    """Register the attention function with transformers; before a model that shall use it is made.

    Not when this module is imported: the parent of a grid checks its points without transformers, which takes seconds.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def mask(*args: Any, device: torch.device | str = "cpu", **options: Any) -> Tensor | None:
        if not may_look(torch.device(device)):
            options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        return sdpa_mask(*args, device=device, **options)

    AttentionInterface.register(ATTENTION, tapped_attention)
    AttentionMaskInterface.register(ATTENTION, mask)


def may_look(device: torch.device) -> bool:
    """Tell whether values of a tensor may be looked at in a forward pass: a GPU would have to be waited for.

    Where they may, a batch without padding gets no mask.
    """
    return device.type == "cpu"


def wanted(objectives: Iterable[Listener], side: int) -> frozenset[str]:
    """Return the names of the features that objectives need of the student (side 0) or the teacher (side 1)."""
    names: set[str] = set()
    for objective in objectives:
        for kind in objective.needs:
            if kind.startswith(MODULE) and BLOCK not in kind:
                names.add(kind)
            else:
                names |= {f"{kind}.{pair[side]}" for pair in objective.pairs}
    return frozenset(names)


def answers_wanted(objectives: Iterable[Listener], side: int) -> bool:
    """Tell whether an objective reads the head's outputs of the student (side 0) or of the teacher (side 1).

    Where no feature is wanted they always are: a loss of nothing hangs on them.
    """
    objectives = list(objectives)
    read = any(objective.answers and (side == 0 or objective.uses_teacher) for objective in objectives)
    return read or not wanted(objectives, side)


def forward(
    model: nn.Module, head: Head, batch: Batch, want: frozenset[str] = frozenset(), answers: bool = True
) -> Features:
    """Run a model, as far up as something is wanted, and return that.

    Args:
        model: takes ``batch.inputs`` as keyword arguments.
        head: says what its answer is.
        batch: some examples.
        want: feature names. ``module:`` features need :func:`prepare` first.
        answers: the head's outputs are wanted. Without them a prepared model stops above its last wanted feature.

    Returns:
        The head's outputs by name, first, if they are wanted, and exactly the wanted features.
    """
    reach.limit(model, head, want, answers)
    inputs: dict[str, Any] = {**batch.inputs, **head.switches}
    hidden = any(name.startswith("hidden.") for name in want)
    if hidden:
        inputs["output_hidden_states"] = True
    taps: dict[str, Any] = {"want": want, "layer": 0, "got": {}}
    if any(name.split(".")[0] in PARTS for name in want):
        inputs["taps"] = taps
    modules = any(name.startswith(MODULE) for name in want)
    recorded: dict[str, Tensor] = {}
    if modules:
        model._kdexp_taps.got = recorded  # type: ignore[union-attr, assignment]
    at = head.places(batch)
    if at is not None:
        model._kdexp_places.at = at if answers else at[:, :0]  # type: ignore[union-attr, assignment]
    output = model(**inputs)
    features: Features = {**(head.outputs(output) if answers else {}), **taps["got"]}
    if modules:
        model._kdexp_taps.got = None  # type: ignore[union-attr, assignment]
        features.update({name: recorded[name] for name in want if name in recorded})
    if hidden:
        for name in want:
            if name.startswith("hidden."):
                features[name] = output.hidden_states[int(name.split(".")[1])]
    return features


class ModuleTaps:
    """The taps on a model's named modules: quiet while ``got`` is None, else they put their outputs there."""

    def __init__(self) -> None:
        self.got: dict[str, Tensor] | None = None
        self.names: set[str] = set()

    def tap(self, name: str, module: nn.Module) -> None:
        """Let a module's output be recorded as a feature from now on."""
        if name not in self.names:
            self.names.add(name)
            module.register_forward_hook(partial(_record, self, name))  # a partial is copied along with its model


def _record(taps: ModuleTaps, name: str, module: nn.Module, arguments: Any, output: Any) -> None:
    if taps.got is None:
        return
    if name in taps.got:
        raise ValueError(
            f"{name}: this module runs more than once in a forward pass (layers are shared), so its output is no one "
            "layer's. Choose student.sharing=none, or a feature that counts calls (hidden, query, key, value)."
        )
    taps.got[name] = output if isinstance(output, Tensor) else output[0]


def prepare(model: nn.Module, want: frozenset[str]) -> None:
    """Make a model ready to hand out features, and to run no further than they need, ahead of compilation.

    Raises:
        ValueError: it has no module of a wanted path.
    """
    reach.install(model)
    places.install(model)
    if any(name.startswith("hidden.") for name in want):
        _install_hidden(model)
    modules = [name for name in want if name.startswith(MODULE)]
    if modules and not hasattr(model, "_kdexp_taps"):
        model._kdexp_taps = ModuleTaps()  # type: ignore[assignment]
    for name in modules:
        path = module_path(model, name)
        try:
            module = model.get_submodule(path)
        except AttributeError as error:
            some = ", ".join(list(dict(model.named_modules()))[1:6])
            raise ValueError(f"{name}: {type(model).__name__} has no module {path}; it has {some}, ...") from error
        model._kdexp_taps.tap(name, module)  # type: ignore[union-attr, operator]


def _install_hidden(model: nn.Module) -> None:
    """Install transformers' capture of hidden states (it takes a lock that cannot be traced)."""
    from transformers import PreTrainedModel
    from transformers.utils.output_capturing import maybe_install_capturing_hooks

    if isinstance(model, PreTrainedModel):
        maybe_install_capturing_hooks(getattr(model, str(model.base_model_prefix), model))


def module_path(model: nn.Module, name: str) -> str:
    """Return the path of the module that a feature's name stands for; ``{block}`` becomes that of layer J (1-based)."""
    path = name.removeprefix(MODULE)
    if BLOCK not in path:
        return path
    path, _, layer = path.rpartition(".")
    blocks = families.of(model).layers(model)
    if not 1 <= int(layer) <= len(blocks):
        raise ValueError(f"{name}: {type(model).__name__} has layers 1 to {len(blocks)}")
    prefix = next(n for n, module in model.named_modules() if module is blocks)
    return path.replace(BLOCK, f"{prefix}.{int(layer) - 1}")


def check(features: Features, want: frozenset[str], who: str) -> None:
    """Make sure that everything wanted was captured.

    Raises:
        ValueError: an architecture whose attention does not pass through transformers' attention interface, or a module
            that the forward pass does not use.
    """
    missing = sorted(want - set(features))
    if not missing:
        return
    unused = [name for name in missing if name.startswith(MODULE)]
    if unused:
        raise ValueError(f"the {who} hands out no {', '.join(unused)}: its forward pass does not run that module.")
    raise ValueError(
        f"the {who} hands out no {', '.join(missing)}: its attention does not go through transformers' attention "
        "interface. Choose an objective on logits or hidden states, or set teacher.attention=false."
    )


@torch.no_grad()
def probe(model: nn.Module, head: Head, batch: Batch, want: frozenset[str], who: str, answers: bool = True) -> None:
    """Prepare a model, run one small forward pass and check that all wanted features arrive."""
    prepare(model, want)
    training = model.training
    model.eval()
    check(forward(model, head, batch.part(slice(0, 2)), want, answers), want, who)
    model.train(training)
