"""ViT: it reads images. Its classifier reads the first token, above a normalisation that follows the last block."""

from __future__ import annotations

from kdexp.models.families.base import Family

FAMILY = Family(reads="images", projections=(("attention.q_proj.", "attention.k_proj."),))
