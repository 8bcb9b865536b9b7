"""What is asked of a family of architectures, and how a family is found by transformers' ``model_type``."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

HERE = "kdexp.models.families"
ATTENTION = "kdexp"
"""Name under which :mod:`kdexp.models.capture` registers its attention function with transformers."""


@dataclass(frozen=True)
class Shape:
    """What an objective may know of a model: sizes, not weights.

    ``num_layers`` counts *effective* layers (more than the owned ones when parameters are shared). ``widths`` are those
    of the layers' outputs where they differ, else ().
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    widths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Block:
    """How a block is taken apart, for a pass that needs only a part of it; the defaults are BERT's.

    Attributes:
        attention: path of the module, inside a block, that makes queries, keys and values and attends with them.
        projections: its linear maps to queries, keys and values, in this order.
    """

    attention: str = "attention.self"
    projections: tuple[str, str, str] = ("query", "key", "value")

    def project(self, block: nn.Module, number: int, hidden_BLD: Tensor) -> Tensor:
        """Return the queries (0), keys (1) or values (2) of a block's input, (B, H, L, d), to the bit as it does."""
        attention: Any = block.get_submodule(self.attention)
        flat = getattr(attention, self.projections[number])(hidden_BLD)
        return flat.view(*hidden_BLD.shape[:-1], -1, attention.attention_head_size).transpose(1, 2)

    def first_row(self, block: nn.Module, hidden_BLD: Tensor, mask: Tensor | None, exchange: bool) -> Tensor:
        """Run a block for the first position, which attends to all: (B, 1, D), what the whole block says there.

        Args:
            mask: of attention, broadcastable to (B, H, L, L), or None.
            exchange: take queries for keys and keys for queries.
        """
        attention: Any = block.get_submodule(self.attention)
        row = hidden_BLD[:, :1]
        context = F.scaled_dot_product_attention(
            self.project(block, int(exchange), row),
            self.project(block, 1 - int(exchange), hidden_BLD),
            self.project(block, 2, hidden_BLD),
            attn_mask=None if mask is None else mask[..., :1, :],
            dropout_p=attention.dropout.p if attention.training else 0.0,
            scale=attention.scaling,
        )
        return self.finish(block, context.transpose(1, 2).flatten(2), row)

    def finish(self, block: Any, context_BND: Tensor, hidden_BND: Tensor) -> Tensor:
        """Return a block's output at N positions from what was attended to and from its input there."""
        output: Tensor = block.feed_forward_chunk(block.attention.output(context_BND, hidden_BND))
        return output


@dataclass(frozen=True)
class Family:
    """Where an architecture keeps things; the defaults are those of BERT and its many relatives.

    Attributes:
        blocks: paths below the base model at which the list of blocks may be.
        pooler: path below the base model of the pooler.
        reads_pooler: the sequence classifier reads the pooler (so that a copied student needs its weights).
        projections: (query, key) prefixes of the projections' names inside a block.
        fused: prefix of the one projection that gives queries, keys and values, in this order; '' = there is none.
        fused_along: the dimension of its weight along which they stand.
        head: path of the classifier's last part, outside the base model.
        language_head: what the names of a language head begin with in published files; '' = it is the word embedding.
        causal: a token is read without those after it.
        uniform: all blocks are of one kind, so that any may be copied into any place.
        stops: a block maps hidden states (B, L, D) to hidden states, so that a forward pass may stop below any.
        block: how one is taken apart; None = it is run whole or not at all.
        first_token: the sequence classifier reads the last block at the first token only.
        reads: what they take: ``texts`` or ``images``.
        hidden: layers hand out hidden states (B, L, D).
        maps: layers hand out maps of convolutions (B, C, H, W), as features of named modules.
        dropout: the architecture has some.
        batch_norm: an example's answer depends, in training, on those beside it in a micro-batch.
        hidden_size, num_layers, num_heads, intermediate_size: names of the sizes in the model's configuration.
    """

    blocks: tuple[str, ...] = ("encoder.layer", "encoder.layers", "layers", "transformer.layer")
    pooler: str = "pooler"
    reads_pooler: bool = False
    projections: tuple[tuple[str, str], ...] = (
        ("attention.self.query.", "attention.self.key."),
        ("attention.q_lin.", "attention.k_lin."),
    )
    fused: str = ""
    fused_along: int = 0
    head: str = "classifier"
    language_head: str = "cls."
    causal: bool = False
    uniform: bool = True
    stops: bool = False
    block: Block | None = None
    first_token: bool = False
    reads: str = "texts"
    hidden: bool = True
    maps: bool = False
    dropout: bool = True
    batch_norm: bool = False
    hidden_size: str = "hidden_size"
    num_layers: str = "num_hidden_layers"
    num_heads: str = "num_attention_heads"
    intermediate_size: str = "intermediate_size"

    def base(self, model: Any) -> nn.Module:
        """Return the part of a model below its head."""
        return getattr(model, str(getattr(model, "base_model_prefix", "")) or "base_model", model)

    def layers(self, model: nn.Module) -> nn.ModuleList:
        """Return the list of a model's (effective) blocks, bottom to top.

        Raises:
            ValueError: an architecture that keeps them elsewhere.
        """
        base = self.base(model)
        for path in self.blocks:
            try:
                found = base.get_submodule(path)
            except AttributeError:
                continue
            if isinstance(found, nn.ModuleList):
                return found
        raise ValueError(
            f"{type(model).__name__}: no list of layers under {', '.join(self.blocks)}; this family is not known. A "
            f"file {HERE.replace('.', '/')}/<model_type>.py with a FAMILY tells where they are."
        )

    def reads_first_token(self, model: nn.Module) -> bool:
        """Tell whether a model's answer depends on its last block at the first token only."""
        return self.first_token and type(model).__name__.endswith("ForSequenceClassification")

    def prefix(self, model: nn.Module) -> str:
        """Return what the names of all weights in blocks begin with, up to the block's number."""
        blocks = self.layers(model)
        return next(name for name, module in model.named_modules() if module is blocks) + "."

    def shape(self, model: Any) -> Shape:
        """Return the sizes that objectives may know; the depth is the effective one."""
        config, depth = model.config, len(self.layers(model))
        return self.sizes(depth, getattr(config, self.hidden_size), getattr(config, self.num_heads))

    def sizes(self, num_layers: int, hidden_size: int, num_heads: int) -> Shape:
        """Return the sizes that objectives may know of a model that is not there."""
        return Shape(num_layers, hidden_size, num_heads, self.widths(num_layers, hidden_size))

    def widths(self, num_layers: int, hidden_size: int) -> tuple[int, ...]:
        """Return the widths of the layers' outputs, bottom to top, where they differ; () = all are ``hidden_size``."""
        return ()

    def kinds(self, num_layers: int) -> list[Any]:
        """Return what each layer is, bottom to top: only layers of a kind can be copied; [] = all are of one."""
        return []

    def misfits(self, sizes: dict[str, int | None]) -> list[str]:
        """Say which sizes no model of this family can have, each as ``size=value: the rule``.

        Args:
            sizes: as for :meth:`resize`.
        """
        return []

    def resize(self, config: Any, sizes: dict[str, int | None]) -> None:
        """Change the sizes of a configuration of this family, in place.

        Args:
            sizes: ``num_layers``, ``hidden_size``, ``num_heads``, ``intermediate_size``; None = as it is.
        """
        for key, value in sizes.items():
            if value is not None:
                setattr(config, getattr(self, key), value)
        if getattr(config, "layer_types", None) is not None:
            config.layer_types = config.layer_types[: sizes["num_layers"]]


@cache
def family(model_type: str) -> Family:
    """Return the family of a ``model_type``, from the module of that name; one that has none is as BERT's relatives."""
    name = f"{HERE}.{model_type.replace('-', '_')}"
    if not model_type.isidentifier() and not model_type.replace("-", "_").isidentifier():
        return Family()
    if importlib.util.find_spec(name) is None:
        return Family()
    return getattr(importlib.import_module(name), "FAMILY", Family())


def of(model: Any) -> Family:
    """Return a model's family."""
    return family(str(getattr(getattr(model, "config", None), "model_type", "")))
