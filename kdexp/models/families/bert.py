"""BERT: its sequence classifier reads the pooler."""

from __future__ import annotations

from kdexp.models.families.base import Block, Family

FAMILY = Family(reads_pooler=True, stops=True, block=Block(), first_token=True)
