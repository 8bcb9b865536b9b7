"""Where a language head is run: at some positions of a sequence only.

The head of a language model works on each position by itself and is as wide as the vocabulary: on all positions it
costs more than a small encoder. So the last hidden states are taken at the wanted places before it sees them, by a hook
on the part of the model below the head, which all families of transformers have; no place, no work.

Legend: B sequences, L positions, M places, D width.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from kdexp.models.families import base as families

LANGUAGE = ("ForMaskedLM", "ForCausalLM", "LMHeadModel")
"""How the names of language models' classes end."""
HOLDER = "_kdexp_places"
"""Attribute of a model whose head can be run at some places."""


class Places:
    """The places (B, M) of the next forward pass; None = all positions."""

    def __init__(self) -> None:
        self.at: Tensor | None = None


def install(model: nn.Module) -> None:
    """Let a language model's head be run at some places, once; until some are named, it is run everywhere."""
    if hasattr(model, HOLDER) or not type(model).__name__.endswith(LANGUAGE):
        return
    below = families.of(model).base(model)
    holder = Places()
    below.register_forward_hook(partial(_taken, holder))  # a partial is copied along with its model
    setattr(model, HOLDER, holder)


def _taken(holder: Places, module: nn.Module, arguments: Any, output: Any) -> Any:
    """Put the hidden states at the wanted places (B, M, D) where those of all positions stood."""
    if holder.at is None:
        return output
    hidden_BLD: Tensor = output.last_hidden_state
    index = holder.at[..., None].expand(-1, -1, hidden_BLD.shape[-1])
    output.last_hidden_state = hidden_BLD.gather(1, index)
    return output
