"""DistilBERT: other names for what BERT's blocks have, no pooler."""

from __future__ import annotations

from kdexp.models.families.base import Block, Family

FAMILY = Family(stops=True, block=Block("attention", ("q_lin", "k_lin", "v_lin")))
