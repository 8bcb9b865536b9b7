"""The leading hidden dimensions, heads and neurons."""

from __future__ import annotations

from kdexp.inits.narrow import Narrow


class Slice(Narrow):
    """Keep the first D' hidden dimensions, the first H' heads (whole) and the first F' neurons of every layer."""
