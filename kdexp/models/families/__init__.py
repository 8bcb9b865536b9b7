"""Families of architectures: where each keeps its blocks, its pooler, its sizes. One file a family, named as its type.

A family that does as BERT does needs no file. Another one is a module ``kdexp/models/families/<model_type>.py`` (dashes
as underscores) with a constant ``FAMILY``.
"""
