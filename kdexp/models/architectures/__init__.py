"""Architectures that transformers does not have: one file each, which registers itself with transformers' Auto classes.

A folder with a ``config.json`` beside them is a size of one, for ``teacher.source=scratch:package:kdexp/...``.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache


@cache
def install() -> None:
    """Make transformers know them all, once a process: before an Auto class is asked. Importing it takes seconds."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
