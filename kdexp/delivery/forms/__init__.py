"""One file a form in which a model runs; each has a ``FORM`` (:class:`kdexp.delivery.form.Form`). Light to import."""

from __future__ import annotations

import pkgutil

RECORD = "kdexp.json"
"""What a form's folder says of itself, for ``python -m kdexp predict``."""
SHAPE = {"form": str, "task": dict, "files": dict}
"""Its keys: the form, the task's settings, and the sha256 of each file that was written with it."""


def names() -> list[str]:
    """Return the forms there are, the plain one first."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(found, key=lambda name: (name != "pytorch", name))
