"""``analysis/`` and ``conf/``: beside the package in a checkout, inside it in an installed copy.

Either way the analysis is imported as ``kdexp.analysis``, so that a folder ``analysis/`` of somebody else's project is
never taken for it. In a checkout it is ``analysis`` too, for those who work there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PACKAGE = Path(__file__).resolve().parents[1]
ANALYSIS = f"{PACKAGE.name}.analysis"


def folder(name: str) -> Path:
    """Return the folder of that name inside the package or, if there is none, beside it."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def has_analysis() -> bool:
    """Whether this copy of kdexp has its analysis."""
    return (folder("analysis") / "__init__.py").is_file()


def offers(group: str) -> list[EntryPoint]:
    """Return what installed packages offer under a name; the analysis' own only where this copy of kdexp has it."""
    from importlib.metadata import entry_points  # slow to import, and asked by few

    return [entry for entry in entry_points(group=group) if has_analysis() or not entry.value.startswith(ANALYSIS)]


class Beside(MetaPathFinder):
    """Finds ``kdexp.analysis`` in a checkout."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where it is; None for everything else, and where it is not beside the package."""
        if fullname != ANALYSIS or not has_analysis():
            return None
        place = folder("analysis")
        return spec_from_file_location(fullname, place / "__init__.py", submodule_search_locations=[str(place)])


def install() -> None:
    """Let Python find ``kdexp.analysis``, once for a process; what lies inside the package it finds first."""
    if not any(isinstance(finder, Beside) for finder in sys.meta_path):
        sys.meta_path.append(Beside())
