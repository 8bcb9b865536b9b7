"""ModernBERT: layers of global and of local attention take turns, so a block fits into places of its own kind only."""

from __future__ import annotations

from kdexp.models.families.base import Family

FAMILY = Family(language_head="head.", blocks=("layers",), fused="attn.Wqkv.", uniform=False, stops=True)
