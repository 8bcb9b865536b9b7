"""kdexp: an experiment suite for the distillation of transformer encoders.

From Python, as in a notebook::

    import kdexp

    run = kdexp.distill(teacher="./my_bert", data="./reviews", labels=["bad", "good"], student="l3")
    kdexp.predict(run, ["a new text"])
    kdexp.study("quickstart").run().table()

The names below belong to :mod:`kdexp.face`, which is imported when the first of them is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdexp.face import ConfigError, Export, Run, Study, distill, export, load, predict, study

from kdexp.common import beside

__version__ = "0.1.0"
beside.install()

__all__ = ["ConfigError", "Export", "Run", "Study", "distill", "export", "load", "predict", "study"]


def __getattr__(name: str) -> Any:
    """Import the face when one of its names is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'kdexp' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module("kdexp.face"), name)


def __dir__() -> list[str]:
    """Name what can be used, for completion in a notebook."""
    return sorted([*globals(), *__all__])
