"""``analysis/`` and ``conf/``: beside the package in a checkout, inside it in an installed copy.

Either way the analysis is imported as ``kdexp.analysis``, so that a folder ``analysis/`` of somebody else's project is
never taken for it. In a checkout it is ``analysis`` too, for those who work there.

Every process imports this; what is slow to import comes late.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from importlib.metadata import EntryPoint
    from types import ModuleType

PACKAGE = Path(__file__).resolve().parents[1]
ANALYSIS = "kdexp.analysis"


def folder(name: str) -> Path:
    """Return the folder of that name inside the package or, if there is none, beside it."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def has_analysis() -> bool:
    """Whether this copy of kdexp has its analysis."""
    return (folder("analysis") / "__init__.py").is_file()


def offers(group: str) -> list[EntryPoint]:
    """Return what installed packages offer under a name; the analysis' own only where this copy of kdexp has it."""
    from importlib.metadata import entry_points

    return [entry for entry in entry_points(group=group) if has_analysis() or not entry.value.startswith(ANALYSIS)]


class Beside:
    """Finds ``kdexp.analysis`` in a checkout (an entry of ``sys.meta_path``)."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where it is; None for everything else, and where it is not beside the package."""
        if fullname != ANALYSIS or not has_analysis():
            return None
        from importlib.util import spec_from_file_location

        place = folder("analysis")
        return spec_from_file_location(fullname, place / "__init__.py", submodule_search_locations=[str(place)])


def install() -> None:
    """Let Python find ``kdexp.analysis``; what lies inside the package it finds first."""
    if Beside not in sys.meta_path:
        sys.meta_path.append(Beside)
