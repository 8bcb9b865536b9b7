"""GPT-2: no encoder."""

from __future__ import annotations

from kdexp.models.families.base import Family

FAMILY = Family(
    unfit="reads from left to right, each token without those after it, and has no padding token; kdexp distils text "
    "encoders"
)
