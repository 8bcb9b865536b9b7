"""RoBERTa: blocks are BERT's; its sequence classifier has a dense layer of its own on the first token."""

from __future__ import annotations

from kdexp.models.families.base import Block, Family

FAMILY = Family(language_head="lm_head.", stops=True, block=Block(), first_token=True)
