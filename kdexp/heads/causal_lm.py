"""The next token of a text: a distribution over the vocabulary at each token but the last one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from kdexp.heads.masked_lm import MaskedLM


class CausalLM(MaskedLM):
    """Logits (B, M, V) at all tokens that another one follows: what is hidden from each is what comes next.

    The model's own language head gives them, at those places alone.
    """

    name: ClassVar[str] = "causal_lm"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    causal: ClassVar[bool] = True
    switches: ClassVar[Mapping[str, Any]] = {"use_cache": False}  # of keys and values, for generation
    together: ClassVar[int] = 8  # logits at every token take much memory
