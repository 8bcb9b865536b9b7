"""ViT: it reads images."""

from __future__ import annotations

from kdexp.models.families.base import Family

FAMILY = Family(unfit="reads images, and kdexp's tasks are texts")
