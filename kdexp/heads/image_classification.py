"""One class an image."""

from __future__ import annotations

from typing import ClassVar

from kdexp.heads.classification import Classification


class ImageClassification(Classification):
    """A class of an image, as logits (B, C): as :class:`Classification`, of models that read images."""

    name: ClassVar[str] = "image_classification"
    auto_class: ClassVar[str] = "AutoModelForImageClassification"
